"""What a refresh asks of PostgreSQL: little, and what belongs together is written together or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from app.db import Database
from app.grants import known_store
from app.grants.grant import GrantKey, LeanGrant, Trigger
from app.listener import GRANT_CHANGED
from app.outages import DatabaseUnavailable
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring
from tests.plans import statements
from tests.postgres import database
from tests.stories.test_claims import LosingAnswers

_RECORDED = """
SELECT generation, (SELECT count(*) FROM refresh_attempts WHERE generation = 2) AS attempts,
  (SELECT count(*) FROM audit_events WHERE action = 'grant.refreshed') AS events
FROM grants
"""
_LOOKED_AT_BESIDES = ("SELECT breakers", "SELECT oauth_clients")  # every ten seconds
_WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'WITH renewed%'"


async def brought(broker: Broker, sandbox: Sandbox, provider: str) -> LeanGrant:
    """Ada's grant. The timetable stands still, so that nothing else is asked."""
    broker.services.timetable.stop()
    sandbox.control(settings={"rotation": {"keeps": "never", "sandbox": "strict"}.get(provider, provider)})
    await broker.put(f"{provider}/ada", bring(sandbox.grant("ada")))
    grant = await known_store.read(broker.services.db.statements, GrantKey(provider, "ada"))
    assert grant is not None
    return grant


async def recorded(database_url: str) -> tuple[int, int, int]:
    """The grant's generation, and how often the history and the audit trail have its refresh."""
    async with database(database_url) as connection:
        [row] = await connection.fetch(_RECORDED)
    return row["generation"], row["attempts"], row["events"]


@pytest.mark.parametrize("provider", ["sandbox", "graced", "keeps"])
async def test_a_refresh_is_a_statement_to_claim_one_to_commit_and_one_to_announce(
    broker: Broker, sandbox: Sandbox, database_url: str, provider: str
) -> None:
    grant = await brought(broker, sandbox, provider)
    with statements() as asked:
        await broker.services.refresher.renewed(grant, Trigger.SCHEDULER)
    texts = [text for text, _ in asked if not text.startswith(_LOOKED_AT_BESIDES)]
    beginnings = ["UPDATE grants SET epoch", "WITH renewed AS", "SELECT pg_notify("]
    assert [text[: len(beginning)] for text, beginning in zip(texts, beginnings, strict=True)] == beginnings
    assert await recorded(database_url) == (2, 1, 1)


async def test_where_the_grant_is_another_one_by_now_nothing_of_the_refresh_is_written(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    grant = await brought(broker, sandbox, "sandbox")
    sandbox.control(faults=[{"kind": "delay", "seconds": 0.5, "after_processing": True}])
    refreshing = asyncio.create_task(broker.services.refresher.renewed(grant, Trigger.SCHEDULER))
    async with database(database_url) as connection, asyncio.timeout(10):
        while not await connection.fetchval("SELECT attempt_id FROM grants"):
            await asyncio.sleep(0.01)
        await connection.execute(
            "UPDATE grants SET lineage_id = gen_random_uuid(), attempt_id = NULL, takeover_at = NULL"
        )
    await asyncio.wait({refreshing})
    async with database(database_url) as connection:
        lineages = await connection.fetch(
            "SELECT grants.lineage_id = refresh_attempts.lineage_id AS is_present FROM grants, refresh_attempts"
        )
    assert not [each for each in lineages if not each["is_present"]]
    generation, attempts, events = await recorded(database_url)
    assert generation - 1 == attempts == events


@pytest.mark.parametrize(
    "refusal",
    [
        "audit_events ADD CONSTRAINT refusal CHECK (action <> 'grant.refreshed')",
        "refresh_attempts ADD CONSTRAINT refusal CHECK (generation < 2)",
        "grants ADD CONSTRAINT refusal CHECK (generation < 2)",
    ],
    ids=["the event", "the attempt", "the grant"],
)
async def test_what_cannot_be_written_whole_is_not_written_at_all_and_not_lost(
    broker: Broker, sandbox: Sandbox, database_url: str, refusal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = await brought(broker, sandbox, "sandbox")
    async with database(database_url) as connection:
        await connection.execute(f"ALTER TABLE {refusal}")
        with pytest.raises(asyncpg.CheckViolationError):
            await broker.services.refresher.renewed(grant, Trigger.SCHEDULER)
        assert await recorded(database_url) == (1, 0, 0)
        await connection.execute(f"ALTER TABLE {refusal.split()[0]} DROP CONSTRAINT refusal")
    monkeypatch.setattr("app.grants.safekeeping._BEYOND_COMMIT_SECONDS", 0.0)
    await broker.services.safekeeping.replay()
    assert await recorded(database_url) == (2, 1, 1)
    assert sandbox.report()["refreshes"] == 1


async def test_a_commit_that_is_cut_off_is_made_once_and_whole(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    grant = await brought(broker, sandbox, "sandbox")
    sandbox.control(faults=[{"kind": "delay", "seconds": 0.5, "after_processing": True}])
    refreshing = asyncio.create_task(broker.services.refresher.renewed(grant, Trigger.SCHEDULER))
    async with database(database_url) as holder, database(database_url) as onlooker, asyncio.timeout(10):
        while not await onlooker.fetchval("SELECT attempt_id FROM grants"):
            await asyncio.sleep(0.01)
        async with holder.transaction():
            await holder.execute("SELECT 1 FROM grants FOR UPDATE")
            while not (pids := await onlooker.fetch(_WAITING)):
                await asyncio.sleep(0.01)
            await onlooker.execute("SELECT pg_terminate_backend($1)", pids[0]["pid"])
            while pids[0]["pid"] in [row["pid"] for row in await onlooker.fetch(_WAITING)]:
                await asyncio.sleep(0.01)
            assert await recorded(database_url) == (1, 0, 0)
        assert (await refreshing).generation == 2
    assert await recorded(database_url) == (2, 1, 1)


async def test_a_commit_whose_answer_was_lost_is_not_made_again(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    grant = await brought(broker, sandbox, "sandbox")
    ledger: Any = broker.services.safekeeping._ledger
    ledger._db = LosingAnswers(ledger._db, times=1)
    ledger._db.await_standby = broker.services.db.await_standby
    assert (await broker.services.refresher.renewed(grant, Trigger.SCHEDULER)).generation == 2
    assert await recorded(database_url) == (2, 1, 1)
    assert broker.services.safekeeping.kept.outstanding == 0


async def test_what_is_announced_at_one_moment_shares_a_statement_and_all_of_it_arrives(
    broker: Broker,
) -> None:
    broker.services.timetable.stop()
    mailbox = broker.services.safekeeping._listener.mailbox(GRANT_CHANGED)
    payloads = [f"{number:03}" for number in range(50)]
    with statements() as asked:
        await asyncio.gather(*(broker.services.db.notify(GRANT_CHANGED, each) for each in payloads))
    assert len([text for text, _ in asked if "pg_notify" in text]) <= 2
    heard: list[str] = []
    async with asyncio.timeout(10):
        while len(heard) < len(payloads):
            await mailbox.wait()
            heard += mailbox.take()[0]
    assert heard == payloads


async def test_who_gives_up_announcing_silences_nobody_else(broker: Broker) -> None:
    mailbox = broker.services.safekeeping._listener.mailbox(GRANT_CHANGED)
    impatient = asyncio.create_task(broker.services.db.notify(GRANT_CHANGED, "one"))
    patient = asyncio.create_task(broker.services.db.notify(GRANT_CHANGED, "other"))
    await asyncio.sleep(0)
    impatient.cancel()
    async with asyncio.timeout(10):
        await patient
        heard: set[str] = set()
        while heard != {"one", "other"}:
            await mailbox.wait()
            heard |= set(mailbox.take()[0])


async def test_all_who_share_a_statement_that_fails_are_told_so() -> None:
    db = Database("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    told = await asyncio.gather(*(db.notify(GRANT_CHANGED, "x") for _ in range(5)), return_exceptions=True)
    assert [type(each) for each in told] == [DatabaseUnavailable] * 5
    with pytest.raises(DatabaseUnavailable):
        await db.notify(GRANT_CHANGED, "x")
    await db.close()
