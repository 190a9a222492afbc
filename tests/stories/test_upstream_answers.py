"""Whatever a token endpoint answers to a refresh: who is told what, what is written down, and that nothing is lost."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from app.sandbox import server as sandbox_server
from app.sandbox.server import Sandbox
from app.settings import Settings
from tests.broker import ROTATIONS, Broker, bring, free_port, settings_for, write_providers
from tests.postgres import as_owner
from tests.stories.upstream_answers import MARK, ROWS, Row

_SENTENCES = re.compile(r"[A-Za-z][A-Za-z0-9 ,;']+\.( [A-Z][A-Za-z0-9 ,;']+\.)*")
_UPSTREAM_ONLY = (MARK, "html", "sat_", "srt_")
_CLOSED = """
name: closed
token_url: http://127.0.0.1:{port}/token
refresh_token: {{rotation: strict}}
"""
_numbers = count()

ONE_OF_EACH_KIND = {(row.provider, row.code, row.outcome): row for row in ROWS}.values()


def name_of(row: Row) -> str:
    return f"{row.provider}: {row.name}"


every_row = pytest.mark.parametrize("row", ROWS, ids=name_of)


@dataclass(frozen=True)
class World:
    """One sandbox, and two brokers on one database, of which the `hasty` one waits 0.3 s for an answer."""

    sandbox: Sandbox
    patient: Broker
    hasty: Broker
    database: asyncpg.Connection

    def http(self, row: Row) -> httpx.AsyncClient:
        return (self.hasty if row.hasty else self.patient).http

    async def stored(self, grant: Grant) -> tuple[int, bytes]:
        """The generation and the refresh token's fingerprint."""
        query = "SELECT generation, refresh_fingerprint FROM grants WHERE id = $1"
        [row] = await self.database.fetch(query, grant.id)
        return row["generation"], row["refresh_fingerprint"]


@dataclass(frozen=True)
class Grant:
    """A grant of a user of its own, whose refreshes the provider answers as the row says."""

    id: UUID
    path: str
    issued: dict[str, Any]

    @property
    def fingerprint(self) -> bytes:
        return hashlib.sha256(self.issued["refresh_token"].encode()).digest()


@pytest.fixture(scope="module")
async def world(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """For all rows: starting it takes longer than a row does."""
    folder, name = tmp_path_factory.mktemp("upstream"), f"test_{uuid4().hex}"
    url = f"{server_url.rpartition('/')[0]}/{name}"
    async with AsyncExitStack() as stack:
        server = await asyncpg.connect(server_url.replace("+asyncpg", ""))
        stack.push_async_callback(server.close)
        await server.execute(f"CREATE DATABASE {name} TEMPLATE template STRATEGY file_copy")
        stack.push_async_callback(server.execute, f"DROP DATABASE {name} WITH (FORCE)")
        sandbox = await stack.enter_async_context(sandbox_server.running())
        settings = _settings(url, folder, sandbox)
        hurried = settings.model_copy(update={"upstream_timeout_seconds": 0.3})
        patient = await stack.enter_async_context(Broker.running(settings))
        hasty = await stack.enter_async_context(Broker.running(hurried))
        database = await asyncpg.connect(as_owner(url))
        stack.push_async_callback(database.close)
        yield World(sandbox, patient, hasty, database)


def _settings(url: str, folder: Path, sandbox: Sandbox) -> Settings:
    """The sandbox as in other stories, and `closed`, where nobody listens. No breaker ever opens."""
    providers_dir = write_providers(folder / "providers", sandbox.url)
    (providers_dir / "closed.yaml").write_text(_CLOSED.format(port=free_port()))
    client = {"client_id": "sandbox", "client_secret": "sandbox-secret"}
    clients = dict.fromkeys([*ROTATIONS, "closed"], client)
    return settings_for(url, providers_dir, data_dir=folder / "var", clients=clients, breaker_failures=1000)


async def granted(world: World, row: Row, *, expires_in: int = -1) -> Grant:
    """A grant whose access token has expired, unless it is given a time; the provider has failed from here on."""
    user = f"user-{next(_numbers)}"
    rotation = ROTATIONS.get(row.provider, "strict")
    world.sandbox.control(settings={"rotation": rotation}, clear_faults=True, reset_counters=True)
    # A grant that is called dead is so of itself, and no part of a provider's bad hour.
    await world.database.execute("UPDATE grants SET refused_at = refused_at - interval '1 hour'")
    issued = world.sandbox.grant(user)
    path = f"{row.provider}/{user}"
    answer = await world.http(row).put(f"/grants/{path}", json=bring(issued, expires_in=expires_in))
    assert answer.status_code == 201, answer.text
    world.sandbox.control(faults=[{**row.fault, "times": -1, "user": user}])
    return Grant(UUID(answer.json()["id"]), path, issued)


def asked(world: World) -> int:
    """How often the token endpoint was asked since the grant was made."""
    hits: int = world.sandbox.report()["hits"].get("token", 0)
    return hits


@every_row
async def test_the_caller_is_told_what_happened_and_it_is_written_down(world: World, row: Row) -> None:
    grant = await granted(world, row)
    answer = await world.http(row).get(f"/tokens/{grant.path}")
    found = await world.http(row).get(f"/grants/{grant.id}")
    history = await world.http(row).get(f"/grants/{grant.id}/history")
    require_problem(answer, row)
    require_failure(found.json(), row, told=answer.json()["detail"])
    require_attempts(history.json()["items"], row)
    shown = f"{answer.headers} {answer.text} {found.text} {history.text}"
    assert [text for text in _UPSTREAM_ONLY if text in shown] == []


def require_problem(answer: httpx.Response, row: Row) -> None:
    """What the caller of an expired token is answered."""
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["category"]) == (row.status, row.code, row.category)
    assert problem.get("provider_code") in ((None,) if row.outcome == "dead" else row.codes)
    assert problem["retryable"] == row.retryable
    assert problem["retry_after"] in _waits(row)
    assert answer.headers.get("retry-after") == (
        str(problem["retry_after"]) if problem["retry_after"] else None
    )
    assert problem["user_id"] and problem["grant_id"]
    assert _SENTENCES.fullmatch(problem["detail"]), problem["detail"]
    assert row.provider in problem["detail"]


def _waits(row: Row) -> Collection[int | None]:
    """How long the caller is told to wait: as the provider says, as nobody may send the token, or a little."""
    if row.retry_after is not None:
        return [row.retry_after]
    if row.outcome == "unknown" and row.provider == "sandbox":
        return range(1, 31)
    return [5 if row.code == "provider_unavailable" else None]


def require_failure(grant: dict[str, Any], row: Row, *, told: str) -> None:
    """What the grant shows."""
    state = (
        ("reconnect_required", "dead", "invalid_grant")
        if row.outcome == "dead"
        else ("active", "failing", None)
    )
    assert (grant["status"], grant["health"], grant["reconnect_reason"]) == state
    error = grant["last_error"]
    assert (error["code"], error["category"]) == (row.code, row.category)
    assert error["message"] == told or row.outcome == "dead"
    assert _SENTENCES.fullmatch(error["message"]), error["message"]


def require_attempts(history: list[dict[str, Any]], row: Row) -> None:
    """What its history says of each try."""
    assert {(each["outcome"], each["category"]) for each in history} == {(row.outcome, row.category)}
    assert {each["provider_code"] for each in history} <= set(row.codes)
    assert [(each["generation"], each["trigger"]) for each in history] == [
        (2 if row.half else 1, "request")
    ] * row.tries


@every_row
async def test_nothing_is_overwritten_and_a_token_that_may_be_spent_is_not_sent_again(
    world: World, row: Row
) -> None:
    grant = await granted(world, row)
    for _ in range(2 if row.outcome == "dead" or row.is_held else 1):
        answer = await world.http(row).get(f"/tokens/{grant.path}")
        assert answer.status_code != 200
        await require_unchanged(world, row, grant)
    assert asked(world) == (0 if row.provider == "closed" else row.tries)
    world.sandbox.control(clear_faults=True)
    after = await world.http(row).get(f"/tokens/{grant.path}")
    if row.outcome == "dead":
        assert (after.status_code, after.json()["reason"]) == (409, "invalid_grant")
    elif row.is_held:
        assert (after.status_code, after.json()["provider_code"]) == (503, "refresh_outcome_unknown")
        assert 1 <= after.json()["retry_after"] <= 30
    elif row.half:
        assert (after.status_code, after.json()["refreshed"]) == (200, True)
    elif row.provider != "closed":
        assert (after.status_code, after.json()["generation"], after.json()["refreshed"]) == (200, 2, True)
        assert asked(world) == row.tries + 1
    # The one that came with half an answer may have been worth nothing either; the one before is tried again then.
    assert world.sandbox.report()["unknown_refresh_tokens"] == (asked(world) == 3 if row.half else 0)
    assert world.sandbox.report()["reuse_detected"] == 0


@every_row
async def test_a_token_that_is_still_valid_is_answered_all_the_same(world: World, row: Row) -> None:
    grant = await granted(world, row, expires_in=100)
    answer = await world.http(row).get(f"/tokens/{grant.path}", params={"min_ttl": 3600})
    await require_present(world, answer, row, grant)


@pytest.mark.parametrize("row", ONE_OF_EACH_KIND, ids=name_of)
async def test_a_refresh_on_demand_answers_the_valid_token_too(world: World, row: Row) -> None:
    grant = await granted(world, row, expires_in=100)
    await require_present(world, await world.http(row).post(f"/tokens/{grant.path}/refresh"), row, grant)


async def require_present(world: World, answer: httpx.Response, row: Row, grant: Grant) -> None:
    """The token as it was brought, with the reason why there is no better one; unchanged in the database."""
    assert answer.status_code == 200, answer.text
    token = answer.json()
    assert (token["access_token"], token["generation"]) == (grant.issued["access_token"], 1)
    assert (token["degraded"], token["refreshed"]) == (row.degraded, False)
    assert 90 < token["expires_in"] <= 100
    await require_unchanged(world, row, grant)


async def require_unchanged(world: World, row: Row, grant: Grant) -> None:
    """What is stored: nothing is overwritten, but for the refresh token by a new one."""
    generation, fingerprint = await world.stored(grant)
    assert (generation, fingerprint == grant.fingerprint) == ((2, False) if row.half else (1, True))
