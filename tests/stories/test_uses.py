"""When a grant was last used: known within seconds, and no fetch writes anything for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from app.api.lane import settle
from app.outages import DatabaseUnavailable
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring, settings_for
from tests.plans import statements
from tests.postgres import database


@pytest.fixture
async def broker(broker: Broker) -> Broker:
    """Nothing is flushed by the clock: tests say when."""
    broker.services.timetable.stop()
    return broker


async def bring_one(broker: Broker, sandbox: Sandbox, user: str) -> UUID:
    grant = await broker.put(f"sandbox/{user}", bring(sandbox.grant(user), expires_in=300))
    assert grant["last_used_at"] is None
    return UUID(grant["id"])


async def last_used(broker: Broker, grant_id: UUID) -> datetime | None:
    answer = (await broker.http.get(f"/grants/{grant_id}")).json()
    return None if answer["last_used_at"] is None else datetime.fromisoformat(answer["last_used_at"])


async def test_a_fetch_is_on_record_after_the_next_flush(broker: Broker, sandbox: Sandbox) -> None:
    ada, bob = [await bring_one(broker, sandbox, user) for user in ("ada", "bob")]
    before = datetime.now(UTC)
    await broker.token("sandbox/ada")
    assert await last_used(broker, ada) is None
    await broker.run("flush_uses")
    used = await last_used(broker, ada)
    assert used is not None and before - timedelta(milliseconds=1) <= used <= datetime.now(UTC)
    assert await last_used(broker, bob) is None


async def test_every_way_to_be_answered_a_token_is_a_use(broker: Broker, sandbox: Sandbox) -> None:
    ids = [await bring_one(broker, sandbox, user) for user in ("ada", "bob", "cem", "dot")]
    items = [{"provider": "sandbox", "user_id": user} for user in ("ada", "bob", "nobody")]
    answer = await broker.http.post("/tokens/batch", json={"items": items})
    assert [item["status"] for item in answer.json()["items"]] == [200, 200, 404]
    await broker.http.post("/tokens/sandbox/cem/refresh", json={"generation": 1})
    await broker.run("flush_uses")
    used = [await last_used(broker, grant_id) for grant_id in ids]
    assert [moment is not None for moment in used] == [True, True, True, False]


async def test_what_the_scheduler_refreshes_is_not_used(broker: Broker, sandbox: Sandbox) -> None:
    grant = await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    tally = await broker.services.due.run(within=timedelta(minutes=5))
    await broker.run("flush_uses")
    assert (tally.refreshed, await last_used(broker, UUID(grant["id"]))) == (1, None)


async def test_fetches_write_nothing_and_a_flush_is_one_statement(broker: Broker, sandbox: Sandbox) -> None:
    users = [f"user-{number}" for number in range(10)]
    for user in users:
        await bring_one(broker, sandbox, user)
    with statements() as asked:
        for user in users * 5:
            await broker.token(f"sandbox/{user}")
        assert [text for text, _ in asked if not text.lstrip().startswith("SELECT")] == []
        asked.clear()
        await broker.run("flush_uses")
        await broker.run("flush_uses")  # nothing is left to write
    assert len(asked) == 1 and "last_used_at" in asked[0][0]


async def test_a_use_changes_nothing_else(broker: Broker, sandbox: Sandbox, database_url: str) -> None:
    await bring_one(broker, sandbox, "ada")
    async with database(database_url) as connection:
        before = dict(await connection.fetchrow("SELECT * FROM grants") or {})
        await broker.token("sandbox/ada")
        await broker.run("flush_uses")
        after = dict(await connection.fetchrow("SELECT * FROM grants") or {})
    assert {name for name in before if before[name] != after[name]} == {"last_used_at"}


async def test_of_two_replicas_the_later_use_counts(
    broker: Broker, twin: Broker, sandbox: Sandbox, database_url: str
) -> None:
    ada = await bring_one(broker, sandbox, "ada")
    twin.services.timetable.stop()
    await broker.token("sandbox/ada")
    settle(broker.app)
    await twin.token("sandbox/ada")
    await twin.run("flush_uses")
    later = await last_used(broker, ada)
    await broker.run("flush_uses")
    assert await last_used(broker, ada) == later


async def test_a_flush_waits_for_nobody_and_what_was_locked_comes_with_the_next(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    ada, bob = [await bring_one(broker, sandbox, user) for user in ("ada", "bob")]
    await broker.token("sandbox/ada")
    await broker.token("sandbox/bob")
    async with database(database_url) as connection:
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM grants WHERE id = $1 FOR UPDATE", ada)
            async with asyncio.timeout(3):
                await broker.run("flush_uses")
            assert await last_used(broker, ada) is None
            assert await last_used(broker, bob) is not None
        with statements() as asked:
            await broker.run("flush_uses")
    assert await last_used(broker, ada) is not None
    assert len(asked) == 1


async def test_flushes_at_once_are_no_deadlock(broker: Broker, twin: Broker, sandbox: Sandbox) -> None:
    ids = [await bring_one(broker, sandbox, f"user-{number}") for number in range(30)]
    for replica, order in ((broker, ids), (twin, ids[::-1])):
        for grant_id in order:
            replica.services.uses.note(grant_id)
    await asyncio.gather(*(replica.services.uses.flush() for replica in (broker, twin)))
    assert None not in [await last_used(broker, grant_id) for grant_id in ids]


async def test_an_outage_loses_no_use(broker: Broker, sandbox: Sandbox, database_url: str) -> None:
    ada = await bring_one(broker, sandbox, "ada")
    async with _read_only(database_url):
        broker.services.uses.note(ada)
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable):
                await broker.run("flush_uses")
    assert await last_used(broker, ada) is None
    await broker.run("flush_uses")
    assert await last_used(broker, ada) is not None


@asynccontextmanager
async def _read_only(url: str) -> AsyncIterator[None]:
    """The server as after a failover, before the standby that was asked is promoted."""
    name = url.rpartition("/")[2]
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
    async with database(url) as connection:
        await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await connection.execute(end, name)
        yield
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await connection.execute(end, name)


async def test_what_is_noted_is_bounded_and_the_latest_uses_are_kept(
    broker: Broker, sandbox: Sandbox
) -> None:
    first, again, last = [await bring_one(broker, sandbox, user) for user in ("ada", "bob", "cem")]
    uses = broker.services.uses
    uses.note(again)
    uses.note(first)
    for _ in range(99_998):
        uses.note(uuid4())
    uses.note(again)
    uses.note(last)
    with statements() as asked:
        await uses.flush()
    assert len(asked) == 99  # of the oldest some more go at once
    used = [await last_used(broker, grant_id) for grant_id in (first, again, last)]
    assert [moment is not None for moment in used] == [False, True, True]
    with statements() as asked:
        await uses.flush()  # ids that no grant has are not kept for ever
    assert asked == []


async def test_shutting_down_writes_the_last_uses(
    broker: Broker, sandbox: Sandbox, database_url: str, providers_dir: Path, tmp_path: Path
) -> None:
    ada = await bring_one(broker, sandbox, "ada")
    settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var")
    async with Broker.running(settings) as leaving:
        leaving.services.timetable.stop()
        await leaving.token("sandbox/ada")
        assert await last_used(broker, ada) is None
    assert await last_used(broker, ada) is not None


async def test_the_timetable_flushes(
    sandbox: Sandbox, database_url: str, providers_dir: Path, tmp_path: Path
) -> None:
    settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var")
    async with Broker.running(settings) as running, asyncio.timeout(15):
        ada = await bring_one(running, sandbox, "ada")
        await running.token("sandbox/ada")
        while await last_used(running, ada) is None:
            await asyncio.sleep(0.1)
