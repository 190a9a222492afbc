"""What goes by the clock: each job for itself, whatever becomes of the others, until the drain begins."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from app.clock import DatabaseClock, SystemClock
from app.drain import Drain
from app.jobs import Job, Timetable
from app.outages import DatabaseUnavailable
from tests.broker import Broker

SOON = timedelta(seconds=0.05)


async def test_a_job_that_fails_is_done_again_and_stops_no_other(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    done: Counter[str] = Counter()

    async def well() -> None:
        done["well"] += 1

    async def away() -> None:
        done["away"] += 1
        raise DatabaseUnavailable

    async def crash() -> None:
        done["crash"] += 1
        raise ZeroDivisionError

    clock = SystemClock()
    drain = Drain(clock, within=timedelta(seconds=1))
    jobs = [Job(work.__name__, work, SOON) for work in (well, away, crash)]
    timetable = Timetable(broker.services.due, drain, clock, interval=timedelta(hours=1), jobs=jobs)
    timetable.start()
    async with asyncio.timeout(10):
        while len(done) < 3 or min(done.values()) < 3 or timetable.last_tick_at is None:
            await asyncio.sleep(0.01)
    assert not timetable.last_tick_failed  # which tells of the refresh tick only
    assert "job.failed" in caplog.text and "job.crashed" in caplog.text
    drain.begin()
    await asyncio.sleep(0.1)
    before = done.copy()
    await asyncio.sleep(0.2)
    timetable.stop()
    assert done == before


async def test_a_job_is_not_done_twice_at_once(broker: Broker) -> None:
    at_once, most, begun = 0, 0, 0

    async def slow() -> None:
        nonlocal at_once, most, begun
        at_once, begun = at_once + 1, begun + 1
        most = max(most, at_once)
        await asyncio.sleep(0.2)
        at_once -= 1

    clock = SystemClock()
    drain = Drain(clock, within=timedelta(seconds=1))
    jobs = [Job("slow", slow, SOON)]
    timetable = Timetable(broker.services.due, drain, clock, interval=timedelta(hours=1), jobs=jobs)
    timetable.start()
    async with asyncio.timeout(10):
        while begun < 3:
            await asyncio.sleep(0.01)
    timetable.stop()
    assert most == 1


async def test_the_first_tick_comes_at_once_even_where_the_machine_s_clock_is_wrong(broker: Broker) -> None:
    clock = DatabaseClock()
    clock.set(datetime.now(UTC) + timedelta(hours=2), at=clock.monotonic())
    drain = Drain(clock, within=timedelta(seconds=1))
    timetable = Timetable(broker.services.due, drain, clock, interval=timedelta(hours=1))
    timetable.start()
    async with asyncio.timeout(10):
        while timetable.last_tick_at is None:
            await asyncio.sleep(0.01)
    assert timetable.next_tick_at is not None
    assert timedelta(0) < timetable.next_tick_at - clock.now() < timedelta(hours=1.2)
    timetable.stop()
