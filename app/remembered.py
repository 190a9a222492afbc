"""What PostgreSQL said lately, remembered: for a moment, and for a minute longer while it cannot be asked.

younger than the TTL                    answered, no SQL; a peek at an older one has it read anew behind the answer
older, PostgreSQL answers               read anew; who asks for the same key meanwhile shares the read
older, PostgreSQL is away or hangs      answered all the same, marked stale, until it is a minute old
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from app.bounded import Bounded
from app.clock import Clock
from app.metrics import CACHE_ENTRIES, CACHE_READS
from app.outages import DatabaseUnavailable
from app.together import Reads, Together

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
        self._clock = clock
        self._ttl_seconds = ttl_seconds
        self._is_outdated = is_outdated
        # What came first goes when it is full: what is asked for is soon there again.
        self._entries: Bounded[K, _Entry[V]] = Bounded(size)
        self._reads: Reads[K, V] = Reads(read_all, clock, self._keep)
        self.turns = 0  # how often something that was remembered was found, or said, to be gone or another
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
            self._reads.of(key)  # behind the answer, so that nobody has to wait for it
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
            if not self._reads:
                self._reads.of(key)  # sees, behind the answer, whether it is over
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
        # One under way may have been too early to tell that something is not there.
        read = self._reads.begin(lacking)
        await read.over(_PATIENCE_SECONDS)
        if read.values is None:
            self._reads.leave(read)
            return set()
        self._answered["miss"].inc(len(lacking))
        return read.absent

    async def read(self, key: K) -> Known[V] | None:
        """As it is now, whatever is remembered. Raises DatabaseUnavailable."""
        self._reads.forget(key)
        return self._fresh(await self._within(key, _DEADLINE_SECONDS))

    def drop(self, key: K) -> None:
        """It changed. A read under way may have been too early, so nobody else gets its result."""
        self.turns += 1
        self._reads.forget(key)
        self._entries.pop(key, None)

    def clear(self) -> None:
        self.turns += 1
        self._reads.forget_all()
        self._entries.clear()

    async def close(self) -> None:
        """Ends the reads that are still waiting for PostgreSQL."""
        await self._reads.close()

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

    def _keep(self, read: Together[K, V], keys: Sequence[K]) -> None:
        """What was read, of these keys; nothing where it failed."""
        if read.values is None:
            self._ahead_again_at = self._clock.monotonic() + _AHEAD_AGAIN_SECONDS
            return
        self._outage_suspected = False
        for key in keys:
            if key in read.absent:
                if self._entries.pop(key, None) is not None:  # it is gone, and nobody said so
                    self.turns += 1
            elif key in self._entries:
                # Where it is: a large dictionary is made anew after many moves, 10 MB at a time.
                self._entries[key] = _Entry(read.values[key], read.began)
            else:
                self._entries.put(key, _Entry(read.values[key], read.began))
        self._kept.set(len(self._entries))

    async def _joined(self, key: K, seconds: float) -> _Entry[V] | None:
        """What is read now: by whoever began to, unless what it finds is known to have changed since."""
        is_shared = key in self._reads
        entry = await self._within(key, seconds)
        if is_shared and entry is not None and self._is_outdated(entry.value, entry.read_at):
            entry = await self._within(key, seconds)
        return entry

    async def _within(self, key: K, seconds: float) -> _Entry[V] | None:
        """What its read finds; one of its own, where only that of several fails. Raises DatabaseUnavailable."""
        read = self._reads.of(key)
        try:
            values = await read.found(seconds)
        except DatabaseUnavailable:
            raise
        except Exception:
            if len(read.keys) == 1:
                raise
            read = self._reads.alone(read, key)
            values = await read.found(seconds)
        return _Entry(values[key], read.began) if key in values else None
