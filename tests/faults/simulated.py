"""Simulated time: replicas in this process and PostgreSQL share a clock that leaps whenever nothing is under way.

What goes by the clock is the service's own, with its defaults: breakers, back-offs, leases, holds, the timetable, the lives of
tokens. What happens between two leaps is real: sockets, SQL, a provider in a process of its own. So an hour takes a minute,
and no refresh is late because the machine is slow. Notifications and the waiting for a provider's answer take real time, in
which the clock goes on as usual.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import asyncpg
from prometheus_client import REGISTRY

from app.api.services import Services
from app.clock import DatabaseClock
from app.configured import key_provider, oauth_clients
from app.errors import BrokerError
from app.main import running
from app.oauth.load import load_catalogue
from app.settings import Settings

STEP_SECONDS = 5.0
_PATIENCE_SECONDS = 0.03  # real ones, for what is under way to come to its end or to a sleep
_SHARED_SECONDS = 0.6  # real ones, in which every replica has heard of a breaker
# Found before PostgreSQL's own by all who say `clock_timestamp()`, as the service does.
_SHADOW = """
CREATE SCHEMA simulated;
CREATE TABLE simulated.leapt (seconds float8 NOT NULL);
INSERT INTO simulated.leapt VALUES (0);
CREATE FUNCTION simulated.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
  'SELECT pg_catalog.clock_timestamp() + make_interval(secs => (SELECT seconds FROM simulated.leapt))';
ALTER ROLE broker SET search_path = public, simulated, pg_catalog;
"""


class SimulatedTime:
    """Real time and all leaps."""

    def __init__(self, shadow: asyncpg.Connection) -> None:
        self._shadow = shadow
        self._leapt = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._slept = 0

    @classmethod
    @asynccontextmanager
    async def of(cls, url: str) -> AsyncIterator[SimulatedTime]:
        """That of the PostgreSQL at `url`, for connections that are made from now on."""
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(_SHADOW)
            await connection.execute("SET synchronous_commit = off")
            yield cls(connection)
        finally:
            await connection.close()

    def monotonic(self) -> float:
        return time.monotonic() + self._leapt

    @property
    def sleeping(self) -> int:
        return len(self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Until somebody leaps so far."""
        turn = asyncio.get_running_loop().create_future()
        self._slept += 1
        heapq.heappush(self._sleepers, (self.monotonic() + seconds, self._slept, turn))
        await turn

    async def leap(self, seconds: float) -> None:
        self._leapt += max(0.0, seconds)
        await self._shadow.execute("UPDATE simulated.leapt SET seconds = $1", self._leapt)
        self._wake()

    async def leap_to_next(self) -> None:
        """As far as the next one who sleeps, if anybody does."""
        if self._sleepers:
            await self.leap(self._sleepers[0][0] - self.monotonic())

    def _wake(self) -> None:
        while self._sleepers and self._sleepers[0][0] <= self.monotonic():
            _, _, turn = heapq.heappop(self._sleepers)
            if not turn.done():
                turn.set_result(None)


class LeapingClock(DatabaseClock):
    """A replica's, on the time that all share."""

    def __init__(self, shared: SimulatedTime) -> None:
        super().__init__()
        self._shared = shared

    def monotonic(self) -> float:
        return self._shared.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._shared.sleep(seconds)


@dataclass
class _Due:
    """A job of one replica, by the simulated clock."""

    work: Callable[[], Awaitable[object]]
    every: float
    at: float


class Simulation:
    """Replicas that live on simulated time. Their timetables' clocks are stopped: what is due is done here."""

    def __init__(self, shared: SimulatedTime, replicas: Sequence[Services]) -> None:
        self.time = shared
        self.replicas = replicas
        self._due = [
            due for number, services in enumerate(replicas) for due in self._timetable(number, services)
        ]

    @classmethod
    @asynccontextmanager
    async def running(cls, shared: SimulatedTime, settings: Sequence[Settings]) -> AsyncIterator[Simulation]:
        """A replica for each of `settings`."""
        async with AsyncExitStack() as stack:
            replicas = []
            for read in settings:
                catalogue = load_catalogue(
                    more=read.providers_dir,
                    allow_loopback=read.allow_loopback_upstreams,
                    networks=read.reachable.networks,
                )
                clients, keys = oauth_clients(read, catalogue), key_provider(read)
                services = await stack.enter_async_context(running(read, clients, keys, LeapingClock(shared)))
                while services.timetable.last_tick_at is None:
                    await asyncio.sleep(_PATIENCE_SECONDS)
                services.timetable.stop()
                replicas.append(services)
            yield cls(shared, replicas)

    async def pass_by(
        self, seconds: float, meanwhile: Callable[[], Iterable[Coroutine[None, None, None]]]
    ) -> None:
        """So much time. In each step of it the work of `meanwhile` is done, with what is due by then."""
        end = self.time.monotonic() + seconds
        while (now := self.time.monotonic()) < end:
            turned = self._turned()
            await self._rest([*self._begun(now), *map(asyncio.create_task, meanwhile())])
            if turned != self._turned():
                await asyncio.sleep(_SHARED_SECONDS)
            await self.time.leap(now + STEP_SECONDS - self.time.monotonic())

    def _timetable(self, number: int, services: Services) -> Iterator[_Due]:
        interval, now = services.timetable.interval, self.time.monotonic()
        tick = _Due(lambda: services.due.run(within=interval), interval.total_seconds(), now)
        tick.at += number * tick.every / len(self.replicas)  # they were not started at the same moment
        yield tick
        for job in services.timetable.jobs:
            yield _Due(job.work, job.every.total_seconds(), now)

    def _begun(self, now: float) -> Iterator[asyncio.Task[None]]:
        for due in self._due:
            if due.at <= now:
                due.at = now + due.every
                yield asyncio.create_task(_done(due))

    async def _rest(self, tasks: Collection[asyncio.Task[None]]) -> None:
        """Until all of them have ended, and whatever they began has ended or sleeps; who sleeps is slept out for them."""
        pending = set(tasks)
        while pending:
            done, pending = await asyncio.wait(pending, timeout=_PATIENCE_SECONDS)
            for task in done:
                task.result()
            if pending and not done:
                await self.time.leap_to_next()
        while _refreshes_in_flight() > self.time.sleeping:
            await asyncio.sleep(_PATIENCE_SECONDS / 10)

    def _turned(self) -> int:
        return sum(breaker.turned.total() for services in self.replicas for breaker in services.breakers)


async def _done(due: _Due) -> None:
    """As the timetable does it: a job that PostgreSQL or a provider fails is done again the next time."""
    with suppress(BrokerError):
        await due.work()


def _refreshes_in_flight() -> float:
    """In all replicas, since they share this process's metrics."""
    value = REGISTRY.get_sample_value("broker_refreshes_in_flight")
    assert value is not None, "there is no such metric"
    return value
