"""An answer that comes too late for T2 is kept beside what is stored, and taken up where that proves to be dead."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.grants.grant import fingerprint
from app.grants.sealing import place_of_candidate
from app.oauth.answers import TokenSet
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring, settings_for
from tests.postgres import database

REFUSED = {"kind": "status", "status": 400, "body": {"error": "invalid_grant"}}


@pytest.fixture
async def hasty(
    database_url: str, providers_dir: Path, tmp_path: Path
) -> AsyncIterator[tuple[Broker, Broker]]:
    """Two replicas whose leases last a second only (settings would refuse that)."""
    settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var")
    quick = settings.model_copy(update={"lease_seconds": 1.0})
    async with AsyncExitStack() as stack:
        yield (
            await stack.enter_async_context(Broker.running(quick)),
            await stack.enter_async_context(Broker.running(quick)),
        )


async def overtaken(hasty: tuple[Broker, Broker], sandbox: Sandbox, path: str) -> dict[str, Any]:
    """The first replica's answer comes after the second has taken its claim over, and has refreshed. What the first's
    caller is told."""
    first, second = hasty
    provider, user = path.split("/")
    issued = sandbox.grant(user)
    sandbox.control(settings={"rotation": "graced" if provider == "graced" else "never", "access_ttl": 600})
    await first.put(path, bring(issued))
    sandbox.control(faults=[{"kind": "delay", "seconds": 2.0, "after_processing": True}])
    late = asyncio.create_task(first.token(path))
    await asyncio.sleep(0.3)
    sandbox.control(settings={"access_ttl": 100})
    assert (await second.token(path))["generation"] == 2
    return await late


async def candidates(database_url: str) -> int:
    async with database(database_url) as connection:
        return int(await connection.fetchval("SELECT count(*) FROM grant_candidates"))


async def expire(database_url: str) -> None:
    async with database(database_url) as connection:
        await connection.execute(
            "UPDATE grants SET expires_at = now() - interval '1 s', next_refresh_at = now()"
        )


async def test_a_late_answer_overwrites_nothing_and_is_kept(
    hasty: tuple[Broker, Broker], sandbox: Sandbox, database_url: str
) -> None:
    told = await overtaken(hasty, sandbox, "graced/ada")
    assert told["generation"] == 2
    assert await candidates(database_url) == 1


async def test_a_late_answer_takes_the_place_of_one_that_the_provider_refuses(
    hasty: tuple[Broker, Broker], sandbox: Sandbox, database_url: str
) -> None:
    told = await overtaken(hasty, sandbox, "graced/ada")
    await expire(database_url)
    sandbox.control(faults=[REFUSED])
    token = await hasty[1].token("graced/ada")
    assert token["generation"] == 3
    assert token["access_token"] != told["access_token"]
    assert token["expires_in"] > 500  # the one that was late
    assert await candidates(database_url) == 0
    await expire(database_url)
    assert (await hasty[1].token("graced/ada"))["generation"] == 4
    grant = (await hasty[1].http.get("/grants", params={"user_id": "ada"})).json()["items"][0]
    history = (await hasty[1].http.get(f"/grants/{grant['id']}/history")).json()["items"]
    assert [each["provider_code"] for each in history] == [None, "candidate_adopted", None]


async def test_a_grant_is_dead_once_nothing_is_left_to_fall_back_to(
    hasty: tuple[Broker, Broker], sandbox: Sandbox, database_url: str
) -> None:
    await overtaken(hasty, sandbox, "graced/ada")
    sandbox.control(faults=[{**REFUSED, "times": -1}])
    answer = httpx.Response(200)
    for _ in range(2):
        await expire(database_url)
        answer = await hasty[1].http.get("/tokens/graced/ada")
    assert (answer.status_code, answer.json()["code"]) == (409, "reconnect_required")


async def test_what_a_late_answer_brings_beyond_the_same_refresh_token_goes_on_top(
    hasty: tuple[Broker, Broker], sandbox: Sandbox, database_url: str
) -> None:
    told = await overtaken(hasty, sandbox, "keeps/ada")
    assert (told["generation"], told["expires_in"] > 500) == (3, True)
    assert await candidates(database_url) == 0


async def test_with_a_deletion_candidates_end_too(
    hasty: tuple[Broker, Broker], sandbox: Sandbox, database_url: str
) -> None:
    await overtaken(hasty, sandbox, "graced/ada")
    answer = await hasty[0].http.delete("/grants/graced/ada")
    assert answer.json() == {"revoked_upstream": True}
    assert await candidates(database_url) == 0
    assert sandbox.report()["hits"]["revoke"] == 2


async def test_with_a_new_lineage_candidates_end(
    hasty: tuple[Broker, Broker], sandbox: Sandbox, database_url: str
) -> None:
    await overtaken(hasty, sandbox, "graced/ada")
    await hasty[0].put("graced/ada", bring(sandbox.grant("ada")))
    assert await candidates(database_url) == 0


async def rotated_past(broker: Broker, sandbox: Sandbox, database_url: str, *, lineage: UUID | None) -> None:
    """The provider has given ada a successor for the refresh token that is stored, which is kept as a candidate only."""
    issued = sandbox.grant("ada")
    grant = await broker.put("sandbox/ada", bring(issued))
    form = {"grant_type": "refresh_token", "refresh_token": issued["refresh_token"]}
    async with httpx.AsyncClient(auth=("sandbox", "sandbox-secret"), trust_env=False) as http:
        answer = (await http.post(f"{sandbox.url}/token", data=form)).json()
    tokens = TokenSet(answer["access_token"], refresh_token=answer["refresh_token"], expires_in=600)
    attempt_id = uuid4()
    sealed = broker.services.vault.seal(json.dumps(asdict(tokens)), place_of_candidate(attempt_id))
    async with database(database_url) as connection:
        present = await connection.fetchval("SELECT lineage_id FROM grants WHERE id = $1", UUID(grant["id"]))
        await connection.execute(
            "INSERT INTO grant_candidates (id, grant_id, lineage_id, base_fingerprint, sealed_tokens, sent_at)"
            " VALUES ($1, $2, $3, $4, $5, $6)",
            attempt_id, UUID(grant["id"]), lineage or present, fingerprint(issued["refresh_token"]), sealed,
            datetime.now(UTC),
        )  # fmt: skip


async def test_a_candidate_for_the_stored_refresh_token_is_adopted_before_anything_is_sent(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await rotated_past(broker, sandbox, database_url, lineage=None)
    assert (await broker.token("sandbox/ada"))["generation"] == 2
    assert (sandbox.report()["refreshes"], sandbox.report()["reuse_detected"]) == (1, 0)
    await expire(database_url)
    assert (await broker.http.post("/tokens/sandbox/ada/refresh")).json()["generation"] == 3


async def test_a_candidate_of_another_lineage_is_never_adopted(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await rotated_past(broker, sandbox, database_url, lineage=uuid4())
    answer = await broker.http.get("/tokens/sandbox/ada")
    assert (answer.status_code, sandbox.report()["reuse_detected"]) == (409, 1)


async def test_candidates_are_kept_for_a_day(broker: Broker, sandbox: Sandbox, database_url: str) -> None:
    await rotated_past(broker, sandbox, database_url, lineage=None)
    await broker.run("erase_candidates")
    assert await candidates(database_url) == 1
    async with database(database_url) as connection:
        await connection.execute("UPDATE grant_candidates SET created_at = now() - interval '25 h'")
    await broker.run("erase_candidates")
    assert await candidates(database_url) == 0


async def half_answered(broker: Broker, sandbox: Sandbox) -> None:
    """Ada's last answer had a refresh token only; the one that it replaced is kept to fall back to."""
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(faults=[{"kind": "no_access_token", "after_processing": True}])
    assert (await broker.http.get("/tokens/sandbox/ada")).status_code == 502


async def test_a_good_answer_proves_the_stored_refresh_token_and_ends_what_was_kept_beside_it(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await half_answered(broker, sandbox)
    assert await candidates(database_url) == 1
    assert (await broker.token("sandbox/ada"))["generation"] == 3
    assert await candidates(database_url) == 0
    await expire(database_url)
    sandbox.control(faults=[REFUSED])
    answer = await broker.http.get("/tokens/sandbox/ada")
    assert (answer.status_code, sandbox.report()["reuse_detected"]) == (409, 0)


async def test_while_a_provider_is_not_believed_nothing_takes_the_place_of_what_is_stored(
    hasty: tuple[Broker, Broker], sandbox: Sandbox, database_url: str
) -> None:
    await overtaken(hasty, sandbox, "graced/ada")
    await expire(database_url)
    async with database(database_url) as connection:
        await connection.execute(
            "INSERT INTO provider_incidents (id, provider, refused, replica, opened_at)"
            " VALUES (gen_random_uuid(), 'graced', 9, 'other', now())"
        )
    sandbox.control(faults=[REFUSED])
    answer = await hasty[1].http.get("/tokens/graced/ada")
    assert answer.json()["provider_code"] == "provider_incident"
    assert await candidates(database_url) == 1


async def test_an_import_that_keeps_the_refresh_token_does_not_drop_its_successor(
    hasty: tuple[Broker, Broker], sandbox: Sandbox
) -> None:
    await hasty[0].put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(faults=[{"kind": "delay", "seconds": 2.5, "after_processing": True}])
    late = asyncio.create_task(hasty[0].http.get("/tokens/sandbox/ada"))
    await asyncio.sleep(2.0)  # the claim is over, and anybody's
    answer = await hasty[1].http.put("/grants/sandbox/ada", json={"access_token": "at", "expires_in": 600})
    assert answer.status_code == 200
    await late
    assert (await hasty[1].http.post("/tokens/sandbox/ada/refresh")).json()["refreshed"]
    assert sandbox.report()["reuse_detected"] == 0


async def test_the_token_that_was_refused_is_not_answered_under_a_new_generation(
    broker: Broker, sandbox: Sandbox
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=600))
    refused = await broker.token("sandbox/ada")
    sandbox.control(faults=[{"kind": "no_access_token", "after_processing": True}])
    body = {"generation": refused["generation"]}
    assert (await broker.http.post("/tokens/sandbox/ada/refresh", json=body)).status_code == 502
    token = (await broker.http.post("/tokens/sandbox/ada/refresh", json=body)).json()
    assert token["access_token"] != refused["access_token"]
    assert (token["generation"], token["degraded"]) == (3, None)
