"""What is wanted at one moment, read together: by one statement, whose answer is shared."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable, Mapping
from types import TracebackType
from typing import Generic, TypeVar

from app.outages import DatabaseUnavailable

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


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

    def succeed(self, values: Mapping[K, V], absent: set[K]) -> None:
        self.values, self.absent = values, absent
        self._end()

    def fail(self, error: BaseException) -> None:
        self._error, self._traceback = error, error.__traceback__
        self._end()

    def _end(self) -> None:
        for waiter in self._waiters:
            _wake(waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
