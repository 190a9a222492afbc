"""The timetable: what this replica does by the clock. Every replica ticks; the rows are shared by SKIP LOCKED."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from app.clock import Clock, SystemClock
from app.drain import Drain
from app.errors import BrokerError
from app.grants.due import DueRefresher
from app.metrics import REFRESHES_DUE, TICK_SECONDS
from app.telemetry import logger

log = logger(__name__)

_JOB = "refresh_due"
_AFTER_FAILURE = timedelta(seconds=10)
_AFTER_POSTPONED = timedelta(seconds=20)  # a breaker's first cool-down is over then
_AT_ONCE = timedelta(seconds=1)  # a job is not begun again in the moment in which it ends
_WALL = SystemClock()  # the one that APScheduler goes by, right or wrong


@dataclass(frozen=True)
class Job:
    """Something to do again and again, never twice at once. `every` is the time between two beginnings."""

    name: str
    work: Callable[[], Awaitable[None]]
    every: timedelta


class Timetable:
    """Refreshes what comes due before the next tick, each interval and right at the start; and does the other `jobs`.

    What is known of ticks is of those of the refresh, since tokens depend on them.
    """

    def __init__(
        self,
        due: DueRefresher,
        drain: Drain,
        clock: Clock,
        *,
        interval: timedelta,
        jobs: Sequence[Job] = (),
    ) -> None:
        self._due = due
        self._drain = drain
        self._clock = clock
        self.jobs = jobs
        self.interval = interval
        self.last_tick_at: datetime | None = None
        self.last_tick_failed = False
        self._scheduler = AsyncIOScheduler(timezone="UTC")

    @property
    def next_tick_at(self) -> datetime | None:
        job = self._scheduler.get_job(_JOB) if self._scheduler.running else None
        return None if job is None else self._clock.now() + (job.next_run_time - _WALL.now())

    def start(self) -> None:
        self._add(Job(_JOB, self._refresh_due, self.interval), next_run_time=_WALL.now())
        for job in self.jobs:
            self._add(job)
        self._scheduler.start()

    def stop(self) -> None:
        """Ends the clock, and cancels a tick that is under way: its refreshes have landed before."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def _add(self, job: Job, **first: datetime) -> None:
        self._scheduler.add_job(
            self._run,
            trigger="interval",
            args=[job],
            id=job.name,
            seconds=job.every.total_seconds(),
            jitter=job.every.total_seconds() * 0.1,
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
            **first,
        )

    async def _run(self, job: Job) -> None:
        if self._drain.begun:
            return
        try:
            await job.work()
        except asyncio.CancelledError:
            if not self._drain.begun:
                raise
            # Stopped in the middle, which the scheduler would call an error.
        except BrokerError as error:  # PostgreSQL is away, for one: no traceback every few seconds
            log.warning("job.failed", job=job.name, detail=error.detail)
        except Exception:  # the next time has to come, whatever happened this time
            log.exception("job.crashed", job=job.name)

    async def _refresh_due(self) -> None:
        started = self._clock.monotonic()
        try:
            tally = await self._due.run(within=self.interval)
            self.last_tick_failed = False
        except Exception:  # the next tick has to come, whatever happened in this one
            log.exception("scheduler.tick_failed")
            self.last_tick_failed = True
            self._tick_again(_AFTER_FAILURE)
            return
        finally:
            self.last_tick_at = self._clock.now()
        seconds = self._clock.monotonic() - started
        REFRESHES_DUE.set(tally.due)
        TICK_SECONDS.set(seconds)
        if seconds >= self.interval.total_seconds():
            self._tick_again(_AT_ONCE)  # its time was over, and the next one was passed over
        elif tally.postponed:
            self._tick_again(_AFTER_POSTPONED)
        if tally.due:
            log.info(
                "scheduler.tick",
                due=tally.due,
                refreshed=tally.refreshed,
                failed=tally.failed,
                postponed=tally.postponed,
            )

    def _tick_again(self, after: timedelta) -> None:
        """What is due waits for an outage to end, not for a whole interval after it."""
        soon = _WALL.now() + min(self.interval, after)
        self._scheduler.modify_job(_JOB, next_run_time=soon)
