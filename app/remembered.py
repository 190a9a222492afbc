"""What PostgreSQL said lately, remembered: for a moment, and for a minute longer while it cannot be asked.

younger than the TTL                    answered, no SQL; a peek at an older one has it read anew behind the answer
older, PostgreSQL answers               read anew; who asks for the same key meanwhile shares the read
older, PostgreSQL is away or hangs      answered all the same, marked stale, until it is a minute old
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from app.bounded import Bounded
from app.clock import Clock
from app.metrics import CACHE_ENTRIES, CACHE_READS
from app.outages import DatabaseUnavailable

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

STALE_SECONDS = 60.0
_PATIENCE_SECONDS = 0.5  # with a read, where there is something older to answer
_AHEAD = 0.6  # of its TTL, and what is asked for is read anew
_AHEAD_AGAIN_SECONDS = 1.0  # after a read that failed
_DEADLINE_SECONDS = 5.0  # with a read, where there is nothing


@dataclass(frozen=True)
class Known(Generic[V]):
    """`is_stale`: PostgreSQL could not be asked whether it is still so. `read_now`: it was asked for this very call."""

    value: V
    is_stale: bool = False
    read_now: bool = False


@dataclass(frozen=True, slots=True)
class Fresh(Generic[V]):
    """`until`: when another look is due, by the monotonic clock: it will have grown too old, or old enough to be read anew."""

    value: V
    until: float


@dataclass(frozen=True, slots=True)
class _Entry(Generic[V]):
    value: V
    read_at: float


class Remembered(Generic[K, V]):
    """Values by key. What is not there (None) is not remembered.

    `ttl_seconds` is asked at each call: it may depend on how soon changes are heard of.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[K], Awaitable[V | None]],
        clock: Clock,
        *,
        size: int,
        ttl_seconds: Callable[[], float],
        is_outdated: Callable[[V, float], bool] = lambda value, read_at: False,
    ) -> None:
        """`is_outdated`: whether a value that was read then, by the monotonic clock, is known to have changed since."""
        self._read = read
        self._clock = clock
        self._ttl_seconds = ttl_seconds
        self._is_outdated = is_outdated
        # What was read first goes when it is full: what is asked for is read anew all the time.
        self._entries: Bounded[K, _Entry[V]] = Bounded(size)
        self._reading: dict[K, asyncio.Task[_Entry[V] | None]] = {}  # whose result is remembered
        self.turns = 0  # how often something that was remembered was found, or said, to be gone or another
        self._loading: list[set[K]] = []  # of several at once, those whose results will be remembered
        self._reads: set[asyncio.Future[Any]] = set()  # all that are under way
        self._outage_suspected = False
        self._ahead_again_at = (
            0.0  # what is still good is no reason to ask a PostgreSQL again and again that is away
        )
        self._answered = {outcome: CACHE_READS.labels(name, outcome) for outcome in ("hit", "stale", "miss")}
        self._kept = CACHE_ENTRIES.labels(name)

    def peek(self, key: K) -> Fresh[V] | None:
        """The value of `key` where it is younger than the TTL. Who is answered by it tells so by `hit`."""
        entry = self._entry(key)
        if entry is None:
            return None
        now, ttl = self._clock.monotonic(), self._ttl_seconds()
        if now >= entry.read_at + ttl:
            return None
        if now < entry.read_at + ttl * _AHEAD:
            return Fresh(entry.value, entry.read_at + ttl * _AHEAD)
        if not self._outage_suspected and now >= self._ahead_again_at:
            self._read_of(key)  # behind the answer, so that nobody has to wait for it
        return Fresh(entry.value, entry.read_at + ttl)

    def glance(self, key: K) -> Fresh[V] | None:
        """The same, of something that is not one of a kind: nothing is read for it."""
        entry, now = self._entry(key), self._clock.monotonic()
        until = 0.0 if entry is None else entry.read_at + self._ttl_seconds()
        return None if entry is None or now >= until else Fresh(entry.value, until)

    def has(self, key: K, value: V) -> bool:
        """Whether this very value is remembered."""
        entry = self._entry(key)
        return entry is not None and entry.value is value

    def hit(self, times: int) -> None:
        """So many were answered by what they had a peek at."""
        self._answered["hit"].inc(times)

    async def get(self, key: K) -> Known[V] | None:
        """The value of `key`. Raises DatabaseUnavailable where it is not known, or not well enough any more."""
        entry, now = self._entry(key), self._clock.monotonic()
        if entry is not None and now - entry.read_at < self._ttl_seconds():
            return self._answer("hit", Known(entry.value))
        if entry is None or now - entry.read_at > STALE_SECONDS:
            return self._fresh(await self._joined(key, _DEADLINE_SECONDS))
        if self._outage_suspected:
            if not self._reading:
                self._read_of(key)  # sees, behind the answer, whether it is over
            return self._answer("stale", Known(entry.value, is_stale=True))
        try:
            return self._fresh(await self._joined(key, _PATIENCE_SECONDS))
        except DatabaseUnavailable:
            self._outage_suspected = True
            return self._answer("stale", Known(entry.value, is_stale=True))

    async def load(
        self, keys: Sequence[K], read_all: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]
    ) -> set[K]:
        """Reads at once those that are not known, if they are several; which of them are not there. Nothing where
        PostgreSQL is away or takes too long: then each is looked at by itself."""
        lacking = [key for key in dict.fromkeys(keys) if self.glance(key) is None]
        if len(lacking) < 2 or self._outage_suspected:
            return set()
        loading, started = set(lacking), self._clock.monotonic()
        self._loading.append(loading)
        read = asyncio.ensure_future(read_all(lacking))
        self._reads.add(read)
        read.add_done_callback(self._ended)
        await asyncio.wait({read}, timeout=_PATIENCE_SECONDS)
        self._loading.remove(loading)
        if not read.done() or read.cancelled() or isinstance(read.exception(), DatabaseUnavailable):
            return set()
        self._answered["miss"].inc(len(lacking))
        found = read.result()
        for key in loading & found.keys():
            self._keep(key, _Entry(found[key], started))
        return loading - found.keys()

    async def read(self, key: K) -> Known[V] | None:
        """As it is now, whatever is remembered. Raises DatabaseUnavailable."""
        self._reading.pop(key, None)  # one under way may have been too early
        return self._fresh(await self._within(self._read_of(key), _DEADLINE_SECONDS))

    def drop(self, key: K) -> None:
        """It changed. A read under way may have been too early, so nobody else gets its result."""
        self.turns += 1
        self._reading.pop(key, None)
        self._entries.pop(key, None)
        for loading in self._loading:
            loading.discard(key)

    def clear(self) -> None:
        self.turns += 1
        self._reading.clear()
        self._entries.clear()
        for loading in self._loading:
            loading.clear()

    async def close(self) -> None:
        """Ends the reads that are still waiting for PostgreSQL."""
        for read in self._reads:
            read.cancel()
        await asyncio.gather(*self._reads, return_exceptions=True)

    def _entry(self, key: K) -> _Entry[V] | None:
        entry = self._entries.get(key)
        if entry is not None and self._is_outdated(entry.value, entry.read_at):
            self.drop(key)
            return None
        return entry

    def _fresh(self, entry: _Entry[V] | None) -> Known[V] | None:
        return self._answer("miss", None if entry is None else Known(entry.value, read_now=True))

    def _answer(self, outcome: str, known: Known[V] | None) -> Known[V] | None:
        self._answered[outcome].inc()
        return known

    def _read_of(self, key: K) -> asyncio.Task[_Entry[V] | None]:
        """The one read of `key` that is under way. It is never cancelled: on a connection that hangs, that hangs too."""
        task = self._reading.get(key)
        if task is None:
            task = self._reading[key] = asyncio.create_task(self._read_through(key))
            self._reads.add(task)
            task.add_done_callback(self._ended)
        return task

    async def _read_through(self, key: K) -> _Entry[V] | None:
        task, started = asyncio.current_task(), self._clock.monotonic()
        try:
            value = await self._read(key)
            self._outage_suspected = False
            entry = None if value is None else _Entry(value, started)
            if self._reading.get(key) is task:
                self._replace(key, entry)
            return entry
        finally:
            if self._reading.get(key) is task:
                del self._reading[key]

    def _replace(self, key: K, entry: _Entry[V] | None) -> None:
        if entry is not None:
            self._keep(key, entry)
        elif self._entries.pop(key, None) is not None:  # it is gone, and nobody said so
            self.turns += 1

    def _keep(self, key: K, entry: _Entry[V]) -> None:
        self._entries.put(key, entry)
        self._kept.set(len(self._entries))

    async def _joined(self, key: K, seconds: float) -> _Entry[V] | None:
        """What is read now: by whoever began to, unless what it finds is known to have changed since."""
        is_shared = key in self._reading
        entry = await self._within(self._read_of(key), seconds)
        if is_shared and entry is not None and self._is_outdated(entry.value, entry.read_at):
            entry = await self._within(self._read_of(key), seconds)
        return entry

    async def _within(self, read: asyncio.Task[_Entry[V] | None], seconds: float) -> _Entry[V] | None:
        """What it finds. Who waits no longer, or is cancelled, ends nothing."""
        waiter = asyncio.get_running_loop().create_future()
        wake = partial(_wake, waiter)
        timer = waiter.get_loop().call_later(seconds, wake)
        read.add_done_callback(wake)
        try:
            await waiter  # as `asyncio.wait` does, at half the cost
        finally:
            timer.cancel()
            read.remove_done_callback(wake)
        if not read.done() or read.cancelled():  # the latter where this replica is shutting down
            raise DatabaseUnavailable
        return read.result()

    def _ended(self, read: asyncio.Future[Any]) -> None:
        self._reads.discard(read)
        # Taken notice of here, since nobody may be waiting any more.
        if not read.cancelled() and read.exception() is not None:
            self._ahead_again_at = self._clock.monotonic() + _AHEAD_AGAIN_SECONDS


def _wake(waiter: asyncio.Future[None], _read: object = None) -> None:
    if not waiter.done():
        waiter.set_result(None)
