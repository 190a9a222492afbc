"""The suite itself: what it measures with is seen to measure."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg

from app.db import Database
from tests.faults import report, scenarios
from tests.faults.evidence import NO_ANSWER, Answer
from tests.faults.invariants import IDLE_SECONDS, Violation
from tests.faults.replica import ReplicaProcess
from tests.faults.simulated import LeapingClock, SimulatedTime
from tests.faults.supervisor import World
from tests.faults.trial import Outcome
from tests.faults.watching import SAMPLE_SECONDS, Watch

OUTCOME = Outcome(
    "replica killed", 7, 12_345, 20, 60, 1, 2, [Violation("a_rule", "broken")], 9.5, ["p50 3 ms"]
)
FAILED = Answer(10.0, 10.5, "refresh", "ada", 0, 503, "overloaded", retry_after=2)


async def test_a_connection_that_is_held_in_its_transaction_is_seen_and_one_that_works_is_not() -> None:
    async with World.running(replicas=0) as world:
        watch = Watch(world)
        holding = await asyncpg.connect(world.postgres.settings["DATABASE_URL"])
        async with watch.watching():
            await holding.execute("BEGIN; SELECT pg_sleep(1.5)")
            assert watch.idle_in_transaction_seconds < IDLE_SECONDS
            await asyncio.sleep(IDLE_SECONDS + 3 * SAMPLE_SECONDS)
        assert watch.idle_in_transaction_seconds > IDLE_SECONDS

        while_stopped = Watch(world)
        for process in (world.postgres, world.authorization_server):
            process.pause()  # whoever is stopped may be the one who holds it
            async with while_stopped.watching():
                await asyncio.sleep(IDLE_SECONDS + 2 * SAMPLE_SECONDS)
                process.resume()
        assert while_stopped.idle_in_transaction_seconds < IDLE_SECONDS
        await holding.close()


async def test_postgresql_and_replicas_leap_together_and_who_sleeps_till_then_awakes() -> None:
    async with World.running(replicas=0) as world:
        url = world.postgres.settings["DATABASE_URL"]
        async with SimulatedTime.of(url) as shared:
            clock, db = LeapingClock(shared), Database(url.replace("postgresql:", "postgresql+asyncpg:"))
            await db.set_clock(clock)
            asleep = asyncio.create_task(clock.sleep(1800))
            await asyncio.sleep(0)
            await shared.leap(1700)
            await asyncio.sleep(0)
            assert not asleep.done()
            await shared.leap_to_next()
            await asyncio.wait_for(asleep, 1)
            [[there]] = await world.postgres.query("SELECT clock_timestamp()")
            ahead = there - datetime.now(UTC)
            assert abs(there - clock.now()) < timedelta(seconds=1)
            assert timedelta(seconds=1795) < ahead < timedelta(seconds=1805)
            await db.close()


async def test_a_replica_remembers_when_and_how_it_was_put_out_of_service(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    process = ReplicaProcess(3, command, tmp_path / "log", environment={}, folder=tmp_path)
    process.start()
    process.serves()
    assert process.downs == []
    process.pause()
    process.resume()
    await process.end()
    process.start()
    process.kill()  # before it was ready again: still the same time without it
    process.start()
    process.serves()
    process.kill()
    stopped, ended, killed = process.downs
    assert {down.replica for down in process.downs} == {3}
    assert [stopped.gently, ended.gently, killed.gently] == [False, True, False]
    assert stopped.since <= stopped.until <= ended.since < ended.until <= killed.since
    assert killed.until == float("inf")


def test_who_came_back_in_vain_is_named_and_who_came_too_soon_or_met_nobody_is_not() -> None:
    served = replace(FAILED, asked_at=12.6, status=200)
    soon, nobody = replace(FAILED, asked_at=11.0), replace(FAILED, asked_at=12.55, status=NO_ANSWER)
    again = replace(FAILED, asked_at=12.5, code="provider_unavailable")
    assert list(scenarios.in_vain([FAILED, soon, nobody, served], [FAILED])) == []
    assert list(scenarios.in_vain([FAILED, again, served], [FAILED])) == [
        "ada: 503 overloaded, and then 503 provider_unavailable"
    ]
    assert list(scenarios.in_vain([FAILED, soon], [FAILED])) == [
        "ada: 503 overloaded, and then nobody came back"
    ]


def test_an_outcome_is_a_row_in_both_tables_with_its_figures_and_its_violations() -> None:
    row, figure, violation = report.lines(OUTCOME)
    assert row.split() == ["replica", "killed", "7", "12345", "20", "60", "1", "2", "1", "9.5"]
    assert (figure.strip(), violation.strip()) == ("p50 3 ms", "a_rule: broken")
    assert "| replica killed | 7 | 20 | 12,345 | 60 | 1 | 2 | 1 |\n\n- replica killed: p50 3 ms\n" in (
        report.markdown([OUTCOME])
    )
