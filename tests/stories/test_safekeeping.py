"""A new refresh token is never lost between the provider's answer and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from app.grants import refresh_store, safekeeping
from app.grants.selection import Selection
from app.outages import DatabaseUnavailable
from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, Broker, Replicas, bring, settings_for
from tests.postgres import Postgres, as_owner

_WAYS = {name: getattr(refresh_store, name) for name in ("renew", "commit_refresh")}


class Outage:
    """While it lasts T2 finds no PostgreSQL."""

    def __init__(self, patch: pytest.MonkeyPatch, broker: Broker) -> None:
        self._patch = patch
        ledger: Any = broker.services.safekeeping._ledger
        patch.setattr(ledger, "_commit_within", timedelta(seconds=0.2))
        patch.setattr(safekeeping, "_BEYOND_COMMIT_SECONDS", 0.0)

    def begin(self) -> None:
        async def away(*_: object, **__: object) -> None:
            raise DatabaseUnavailable

        for name in _WAYS:
            self._patch.setattr(refresh_store, name, away)

    def end(self) -> None:
        for name, true_way in _WAYS.items():
            self._patch.setattr(refresh_store, name, true_way)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch, broker: Broker) -> Outage:
    return Outage(monkeypatch, broker)


async def lost_answer(broker: Broker, sandbox: Sandbox, outage: Outage) -> None:
    """The provider has rotated ada's refresh token, and PostgreSQL does not know."""
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    outage.begin()
    answer = await broker.http.get("/tokens/sandbox/ada")
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    assert broker.services.safekeeping.kept.outstanding == 1
    outage.end()


async def still_works(broker: Broker, sandbox: Sandbox, *, generation: int) -> None:
    """The present token is the provider's, and so is the refresh token behind it."""
    token = await broker.token("sandbox/ada")
    assert (token["generation"], token["refreshed"]) == (generation, False)
    again = await broker.http.post("/tokens/sandbox/ada/refresh", json={"generation": generation})
    assert (again.status_code, again.json()["generation"]) == (200, generation + 1)
    assert sandbox.report()["reuse_detected"] == 0


async def test_an_answer_that_postgresql_missed_is_committed_when_it_is_back(
    broker: Broker, sandbox: Sandbox, outage: Outage
) -> None:
    await lost_answer(broker, sandbox, outage)
    await broker.services.safekeeping.replay()
    assert broker.services.safekeeping.kept.outstanding == 0
    await still_works(broker, sandbox, generation=2)


async def test_what_cannot_be_committed_yet_is_tried_again(
    broker: Broker, sandbox: Sandbox, outage: Outage
) -> None:
    await lost_answer(broker, sandbox, outage)
    outage.begin()
    with pytest.raises(DatabaseUnavailable):
        await broker.services.safekeeping.replay()
    outage.end()
    for _ in range(2):  # a second time changes nothing
        await broker.services.safekeeping.replay()
    await still_works(broker, sandbox, generation=2)


async def test_a_commit_whose_answer_was_lost_is_not_repeated(
    broker: Broker, sandbox: Sandbox, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker.services.safekeeping, "done", lambda _: None)
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    assert (await broker.token("sandbox/ada"))["generation"] == 2
    await broker.services.safekeeping.replay()
    await still_works(broker, sandbox, generation=2)


async def test_a_grant_that_was_connected_anew_meanwhile_keeps_its_new_tokens(
    broker: Broker, sandbox: Sandbox, outage: Outage
) -> None:
    await lost_answer(broker, sandbox, outage)
    fresh = sandbox.grant("ada")
    await broker.put("sandbox/ada", bring(fresh, expires_in=3600))
    await broker.services.safekeeping.replay()
    assert (await broker.token("sandbox/ada"))["access_token"] == fresh["access_token"]


async def test_the_tokens_of_a_grant_that_was_deleted_meanwhile_are_revoked(
    broker: Broker, sandbox: Sandbox, outage: Outage
) -> None:
    await lost_answer(broker, sandbox, outage)
    assert (await broker.http.delete("/grants/sandbox/ada")).status_code == 200
    hits = sandbox.report()["hits"]["revoke"]
    await broker.services.safekeeping.replay()
    assert sandbox.report()["hits"]["revoke"] == hits + 1
    assert (await broker.http.get("/tokens/sandbox/ada")).status_code == 404
    assert broker.services.safekeeping.kept.outstanding == 0


async def test_what_a_replica_left_another_commits(
    database_url: str,
    providers_dir: Path,
    tmp_path: Path,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var")
    async with Broker.running(settings) as leaving:
        await lost_answer(leaving, sandbox, Outage(monkeypatch, leaving))
    async with Broker.running(settings) as staying:
        await staying.services.safekeeping.replay()
        await still_works(staying, sandbox, generation=2)
        assert len(list((tmp_path / "var/journal").iterdir())) == 1  # the one of the replica that is there


@pytest.fixture
async def unsafe(database_url: str, providers_dir: Path, tmp_path: Path) -> AsyncIterator[Broker]:
    """A replica whose journal cannot be written."""
    (tmp_path / "no-folder").touch()
    settings = settings_for(
        database_url, providers_dir, data_dir=tmp_path / "var", journal_dir=tmp_path / "no-folder/journal"
    )
    async with Broker.running(settings) as running:
        yield running


async def test_where_answers_cannot_be_kept_nothing_is_asked_that_can_be_asked_once_only(
    unsafe: Broker, sandbox: Sandbox
) -> None:
    await unsafe.put("sandbox/ada", bring(sandbox.grant("ada")))
    await unsafe.put("sandbox/eve", bring(sandbox.grant("eve"), expires_in=3600))
    answer = await unsafe.http.get("/tokens/sandbox/ada")
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    assert answer.headers["retry-after"] == "2"
    forced = await unsafe.http.post("/tokens/sandbox/eve/refresh", json={})
    assert (forced.status_code, forced.json()["degraded"]) == (200, "refresh_failed")
    assert sandbox.report()["refreshes"] == 0
    sandbox.control(settings={"rotation": "never"})
    await unsafe.put("keeps/ada", bring(sandbox.grant("ada")))
    assert (await unsafe.token("keeps/ada"))["generation"] == 2
    health = (await unsafe.http.get("/health-check")).json()
    assert (health["status"], health["checks"]["journal"]["status"]) == ("degraded", "degraded")
    assert "broker_journal_writable 0.0" in (await unsafe.http.get("/metrics")).text


async def test_a_replica_killed_with_an_answer_in_its_hands_loses_nothing(
    postgres: Postgres,
    providers_dir: Path,
    sandbox: Sandbox,
    tmp_path: Path,
) -> None:
    """PostgreSQL hangs while the answer comes, so that it is nowhere but in the journal; then kill -9."""
    replicas = Replicas(postgres.url, providers_dir, tmp_path)
    try:
        doomed, other = replicas.start(), replicas.start()
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        async with httpx.AsyncClient(headers=headers, timeout=60) as http:
            await http.put(f"{doomed.url}/grants/sandbox/ada", json=bring(sandbox.grant("ada")))
            sandbox.control(settings={"delay": 0.5})
            asking = asyncio.create_task(http.get(f"{doomed.url}/tokens/sandbox/ada"))
            async with asyncio.timeout(10):
                while sandbox.report()["refreshes"] == 0:
                    await asyncio.sleep(0.01)
            postgres.hang()
            await asyncio.sleep(1.5)
            doomed.process.kill()
            await asyncio.gather(asking, return_exceptions=True)
            postgres.go_on()
            sandbox.control(settings={"delay": 0.0})
            async with asyncio.timeout(40):
                while (answer := await http.get(f"{other.url}/tokens/sandbox/ada")).status_code != 200:
                    await asyncio.sleep(0.2)
            assert answer.json()["generation"] == 2
            again = await http.post(f"{other.url}/tokens/sandbox/ada/refresh", json={"generation": 2})
            assert again.json()["generation"] == 3
        report = sandbox.report()
        assert (report["refreshes"], report["reuse_detected"]) == (2, 0)
    finally:
        postgres.go_on()
        replicas.stop()


async def test_who_holds_an_answer_commits_it_before_asking_again(
    broker: Broker, sandbox: Sandbox, outage: Outage, database_url: str
) -> None:
    """The hold is over, and the first caller comes before the timetable."""
    await lost_answer(broker, sandbox, outage)
    await _end_the_hold(database_url)
    token = await broker.token("sandbox/ada")
    assert token["generation"] == 2
    assert broker.services.safekeeping.kept.outstanding == 0
    assert (sandbox.report()["refreshes"], sandbox.report()["reuse_detected"]) == (1, 0)


async def test_nobody_takes_over_at_a_strict_provider_while_postgresql_has_only_just_come_back(
    broker: Broker, twin: Broker, sandbox: Sandbox, outage: Outage, database_url: str
) -> None:
    """The other replica does not know that the answer is in a journal: it waits for whoever has it."""
    await lost_answer(broker, sandbox, outage)
    await _end_the_hold(database_url)
    listener: Any = twin.services.safekeeping._listener
    listener._steady_since = twin.services.clock.monotonic()
    asking = asyncio.create_task(twin.http.get("/tokens/sandbox/ada"))
    await asyncio.sleep(1)
    await broker.services.safekeeping.replay()
    answer = await asking
    assert (answer.status_code, answer.json()["generation"]) == (200, 2)
    assert (sandbox.report()["refreshes"], sandbox.report()["reuse_detected"]) == (1, 0)


async def test_a_takeover_is_not_put_off_for_ever(
    broker: Broker, sandbox: Sandbox, outage: Outage, database_url: str
) -> None:
    await lost_answer(broker, sandbox, outage)
    grant = (await broker.services.reader.listed(Selection(), after=None, limit=1))[0]
    keeping, client = broker.services.safekeeping, broker.services.clients.get("sandbox")
    listener: Any = keeping._listener
    listener._steady_since = broker.services.clock.monotonic()
    now = broker.services.clock.now()
    assert not keeping.may_take_over(client, replace(grant, takeover_at=now - timedelta(seconds=59)))
    assert keeping.may_take_over(client, replace(grant, takeover_at=now - timedelta(seconds=61)))
    assert keeping.may_take_over(broker.services.clients.get("graced"), grant)


async def test_a_commit_that_has_to_wait_does_not_lengthen_a_tokens_life(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    connection = await asyncpg.connect(as_owner(database_url))
    try:
        lock = connection.transaction()
        sandbox.control(settings={"delay": 0.3})
        asking = asyncio.create_task(broker.token("sandbox/ada"))
        async with asyncio.timeout(10):
            while sandbox.report()["refreshes"] == 0:
                await asyncio.sleep(0.01)
        issued = broker.services.clock.now()
        await lock.start()
        await connection.execute("LOCK TABLE grants IN SHARE ROW EXCLUSIVE MODE")
        await asyncio.sleep(3)
        await lock.rollback()
        expires_at = datetime.fromisoformat((await asking)["expires_at"])
    finally:
        await connection.close()
    assert expires_at - issued <= timedelta(seconds=300.5)


async def _end_the_hold(database_url: str) -> None:
    connection = await asyncpg.connect(as_owner(database_url))
    try:
        await connection.execute("UPDATE grants SET takeover_at = now(), lease_until = now()")
    finally:
        await connection.close()
