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
from typing import Generic, TypeVar

from app.bounded import Bounded
from app.clock import Clock
from app.metrics import CACHE_ENTRIES, CACHE_READS
from app.outages import DatabaseUnavailable
from app.together import Together

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

STALE_SECONDS = 60.0
_PATIENCE_SECONDS = 0.5  # with a read, where there is something older to answer
_AHEAD = 0.6  # of its TTL, and what is asked for is read anew
_AHEAD_AGAIN_SECONDS = 1.0  # after a read that failed
_DEADLINE_SECONDS = 5.0  # with a read, where there is nothing
_AT_ONCE = 100


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
    """Values by key. What is not there (None) is not remembered. What is wanted in one turn of the event loop is read at once.

    `ttl_seconds` is asked at each call: it may depend on how soon changes are heard of.
    """

    def __init__(
        self,
        name: str,
        read_all: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]],
        clock: Clock,
        *,
        size: int,
        ttl_seconds: Callable[[], float],
        is_outdated: Callable[[V, float], bool] = lambda value, read_at: False,
    ) -> None:
        """`read_all` finds the values of up to 100 keys, of those that have one. `is_outdated`: whether a value that was read
        then, by the monotonic clock, is known to have changed since."""
        self._read_all = read_all
        self._clock = clock
        self._ttl_seconds = ttl_seconds
        self._is_outdated = is_outdated
        # What came first goes when it is full: what is asked for is soon there again.
        self._entries: Bounded[K, _Entry[V]] = Bounded(size)
        self._reading: dict[K, Together[K, _Entry[V]]] = {}  # whose result is remembered
        self._gathering: Together[K, _Entry[V]] | None = None  # what is wanted besides joins it
        self.turns = 0  # how often something that was remembered was found, or said, to be gone or another
        self._tasks: set[asyncio.Task[Mapping[K, V]]] = set()  # of all reads that are under way
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

    async def load(self, keys: Sequence[K]) -> set[K]:
        """Reads at once those that are not known, if they are several; which of them are not there. Nothing where that fails or
        takes too long: then each is looked at by itself."""
        lacking = [key for key in dict.fromkeys(keys) if self.glance(key) is None]
        if len(lacking) < 2 or self._outage_suspected:
            return set()
        read = self._begun(
            lacking
        )  # one under way may have been too early to tell that something is not there
        await read.over(_PATIENCE_SECONDS)
        if read.values is None:
            for key in lacking:
                self._leave(read, key)
            return set()
        self._answered["miss"].inc(len(lacking))
        return read.absent

    async def read(self, key: K) -> Known[V] | None:
        """As it is now, whatever is remembered. Raises DatabaseUnavailable."""
        self._reading.pop(key, None)  # one under way may have been too early
        return self._fresh(await self._within(key, _DEADLINE_SECONDS))

    def drop(self, key: K) -> None:
        """It changed. A read under way may have been too early, so nobody else gets its result."""
        self.turns += 1
        self._reading.pop(key, None)
        self._entries.pop(key, None)

    def clear(self) -> None:
        self.turns += 1
        self._reading.clear()
        self._entries.clear()

    async def close(self) -> None:
        """Ends the reads that are still waiting for PostgreSQL."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

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

    def _read_of(self, key: K) -> Together[K, _Entry[V]]:
        """The one read of `key` that is under way, or about to be. It is never cancelled: on a connection that hangs, that hangs
        too."""
        read = self._reading.get(key)
        if read is None:
            read = self._gathering
            if read is None:
                read = self._gathering = self._begun([key])
            else:
                read.keys[key] = None
                self._reading[key] = read
            if len(read.keys) >= _AT_ONCE:
                self._gathering = None
        return read

    def _begun(self, keys: Sequence[K]) -> Together[K, _Entry[V]]:
        """A read of them that starts in the next turn of the event loop, and is the one that counts."""
        read: Together[K, _Entry[V]] = Together(self._clock.monotonic(), keys)
        self._reading.update(dict.fromkeys(keys, read))
        task = asyncio.create_task(self._values(read))
        self._tasks.add(task)
        task.add_done_callback(partial(self._over, read))
        return read

    def _leave(self, read: Together[K, _Entry[V]], key: K) -> bool:
        """Nobody joins the read of this key any more, nor is its result remembered; whether it was the one that counts."""
        is_it = self._reading.get(key) is read
        if is_it:
            del self._reading[key]
        return is_it

    async def _values(self, read: Together[K, _Entry[V]]) -> Mapping[K, V]:
        if self._gathering is read:
            self._gathering = None
        return await self._read_all(list(read.keys))

    def _over(self, read: Together[K, _Entry[V]], task: asyncio.Task[Mapping[K, V]]) -> None:
        self._tasks.discard(task)
        if self._gathering is read:  # it was cancelled before it started
            self._gathering = None
        wanted = [key for key in read.keys if self._leave(read, key)]
        if task.cancelled():  # this replica is shutting down
            read.fail(DatabaseUnavailable())
        elif (error := task.exception()) is not None:
            self._ahead_again_at = self._clock.monotonic() + _AHEAD_AGAIN_SECONDS
            read.fail(error)
        else:
            self._outage_suspected = False
            found = {key: _Entry(value, read.began) for key, value in task.result().items()}
            for key in wanted:
                self._replace(key, found.get(key))
            self._kept.set(len(self._entries))
            read.succeed(found, {key for key in wanted if key not in found})

    def _replace(self, key: K, entry: _Entry[V] | None) -> None:
        if entry is None:
            if self._entries.pop(key, None) is not None:  # it is gone, and nobody said so
                self.turns += 1
        elif key in self._entries:
            self._entries[key] = (
                entry  # where it is: a large dictionary is made anew after many moves, 10 MB at a time
            )
        else:
            self._entries.put(key, entry)

    async def _joined(self, key: K, seconds: float) -> _Entry[V] | None:
        """What is read now: by whoever began to, unless what it finds is known to have changed since."""
        is_shared = key in self._reading
        entry = await self._within(key, seconds)
        if is_shared and entry is not None and self._is_outdated(entry.value, entry.read_at):
            entry = await self._within(key, seconds)
        return entry

    async def _within(self, key: K, seconds: float) -> _Entry[V] | None:
        """What its read finds; one of its own, where only that of many fails. Raises DatabaseUnavailable."""
        read = self._read_of(key)
        try:
            return (await read.found(seconds)).get(key)
        except DatabaseUnavailable:
            raise
        except Exception:
            if len(read.keys) == 1:
                raise
        alone = read.alone.get(key)
        if alone is None:
            alone = read.alone[key] = self._begun([key])
        return (await alone.found(seconds)).get(key)
