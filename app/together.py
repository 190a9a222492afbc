"""What is wanted at one moment, read together: by one statement, whose answer is shared.

`Together` is one such read; `Reads` are those of one kind that are under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Generic, TypeVar

from app.clock import Clock
from app.outages import DatabaseUnavailable

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_AT_ONCE = 100


class Together(Generic[K, V]):
    """One read of the values of `keys`. `began` is by the monotonic clock: what changed before that, it sees.

    `values` are those that are there, once it is over; None before that, and where it failed. `absent` are keys that have none,
    as far as nobody said meanwhile that they changed. `alone` are reads of one key each, begun because this one failed.
    """

    __slots__ = ("_error", "_traceback", "_waiters", "absent", "alone", "began", "keys", "values")

    def __init__(self, began: float, keys: Iterable[K]) -> None:
        self.began = began
        self.keys = dict.fromkeys(keys)  # in the order that they were asked for
        self.values: Mapping[K, V] | None = None
        self.absent: set[K] = set()
        self.alone: dict[K, Together[K, V]] = {}
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._waiters: list[asyncio.Future[None]] = []

    async def found(self, seconds: float) -> Mapping[K, V]:
        """The values. Raises DatabaseUnavailable where that takes longer, and whatever the read raised."""
        await self.over(seconds)
        if self._error is not None:
            raise self._error.with_traceback(self._traceback)  # which else grows with each who waits
        if self.values is None:
            raise DatabaseUnavailable
        return self.values

    async def over(self, seconds: float) -> None:
        """Waits for its end, for so long at most. Who waits no longer, or is cancelled, ends nothing."""
        if self.values is not None or self._error is not None:
            return
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        timer = loop.call_later(seconds, _wake, waiter)
        self._waiters.append(waiter)
        try:
            await waiter  # as `asyncio.wait` does, at half the cost
        finally:
            timer.cancel()

    def succeed(self, values: Mapping[K, V], wanted: Iterable[K]) -> None:
        self.values = values
        self.absent = {key for key in wanted if key not in values}

    def fail(self, error: BaseException) -> None:
        self._error, self._traceback = error, error.__traceback__

    def wake(self) -> None:
        """Tells who waits that it is over."""
        for waiter in self._waiters:
            _wake(waiter)


class Reads(Generic[K, V]):
    """Belongs to one event loop. A read is never cancelled: on a connection that hangs, that hangs too."""

    def __init__(
        self,
        read_all: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]],
        clock: Clock,
        over: Callable[[Together[K, V], Sequence[K]], None],
    ) -> None:
        """`over` hears of each that is, before anybody who waits for it, with those keys of which it is the one that counts."""
        self._read_all = read_all
        self._clock = clock
        self._over = over
        self._counting: dict[K, Together[K, V]] = {}
        self._gathering: Together[K, V] | None = None  # what is wanted besides joins it
        self._tasks: set[asyncio.Task[Mapping[K, V]]] = set()

    def __len__(self) -> int:
        return len(self._counting)

    def __contains__(self, key: K) -> bool:
        return key in self._counting

    def of(self, key: K) -> Together[K, V]:
        """The one that counts: under way, or about to be with whatever else is wanted in this turn of the event loop."""
        read = self._counting.get(key)
        if read is not None:
            return read
        read = self._gathering
        if read is None:
            read = self._gathering = self.begin([key])
        else:
            read.keys[key] = None
            self._counting[key] = read
        if len(read.keys) >= _AT_ONCE:
            self._gathering = None
        return read

    def begin(self, keys: Sequence[K]) -> Together[K, V]:
        """One of these keys, which counts from now on. It starts in the next turn of the event loop."""
        read: Together[K, V] = Together(self._clock.monotonic(), keys)
        self._counting.update(dict.fromkeys(keys, read))
        task = asyncio.create_task(self._values(read))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, read))
        return read

    def alone(self, failed: Together[K, V], key: K) -> Together[K, V]:
        """One of this key alone, where that of several failed. Whoever waited for that shares it."""
        read = failed.alone.get(key)
        if read is None:
            read = failed.alone[key] = self.begin([key])
        return read

    def leave(self, read: Together[K, V]) -> list[K]:
        """It counts for nothing any more, though it goes on; for which keys it did until now."""
        counted = [key for key in read.keys if self._counting.get(key) is read]
        for key in counted:
            del self._counting[key]
        return counted

    def forget(self, key: K) -> None:
        """One under way may have been too early: who asks from now on gets another."""
        self._counting.pop(key, None)

    def forget_all(self) -> None:
        self._counting.clear()

    async def close(self) -> None:
        """Ends those that are still waiting for PostgreSQL."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _values(self, read: Together[K, V]) -> Mapping[K, V]:
        if self._gathering is read:
            self._gathering = None
        return await self._read_all(list(read.keys))

    def _ended(self, read: Together[K, V], task: asyncio.Task[Mapping[K, V]]) -> None:
        self._tasks.discard(task)
        if self._gathering is read:  # it was cancelled before it started
            self._gathering = None
        counted = self.leave(read)
        if task.cancelled():  # this replica is shutting down
            read.fail(DatabaseUnavailable())
        elif (error := task.exception()) is not None:
            read.fail(error)
        else:
            read.succeed(task.result(), counted)
        self._over(read, counted)
        read.wake()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
