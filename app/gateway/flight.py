"""One call to a provider's API that several wait for at once: identical GETs in flight.

who comes first begins it; who comes meanwhile waits for the same; each for as long as he likes
it goes on while anybody waits, and ends when nobody does
a whole answer goes to all, an error too, but for who has time left when it comes of the time of who began it; one that streams, or is large, to one of them: the others ask for themselves
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Hashable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from app.gateway.answers import Watch
from app.gateway.gateway import Reply
from app.grants.grant import LeanGrant


@dataclass(frozen=True)
class Whole:
    """An answer that may be given to many."""

    status: int
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    attempts: int
    grant: LeanGrant
    age: int | None = None


class Rest:
    """An answer that goes on, for one only. `leaving` ends it."""

    def __init__(self, reply: Reply, leaving: AsyncExitStack) -> None:
        self._reply = reply
        self._leaving = leaving
        self._is_taken = False

    def take(self) -> tuple[Reply, AsyncExitStack] | None:
        """To be ended by who takes it; None where somebody has."""
        if self._is_taken:
            return None
        self._is_taken = True
        return self._reply, self._leaving

    async def drop(self) -> None:
        """Ends it, unless somebody has taken it."""
        if not self._is_taken:
            self._is_taken = True
            await self._leaving.aclose()


Landed = Whole | Rest


class Flight:
    """`watch` tells whether what it brings may be given to who asks now."""

    def __init__(self, work: Coroutine[Any, Any, Landed], watch: Watch) -> None:
        self.watch = watch
        self._begun_at = asyncio.get_running_loop().time()
        self._task = asyncio.create_task(work)
        self._waiting = 0

    @property
    def seconds(self) -> float:
        """How long ago it began."""
        return asyncio.get_running_loop().time() - self._begun_at

    async def landed(self, *, within: float) -> Landed:
        """What it brings. Raises TimeoutError after `within` seconds, and what the call raised."""
        self._waiting += 1
        try:
            done, _ = await asyncio.wait({self._task}, timeout=within)
            if not done:
                raise TimeoutError
            error = self._task.exception()
            if error is not None:
                raise error.with_traceback(None)  # or it would grow with each who is told it
            return self._task.result()
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._leave()

    def _leave(self) -> None:
        """Nobody waits any more."""
        if not self._task.done():
            self.watch.is_outdated = True  # it is about to end with nothing
            self._task.cancel()
        elif not self._task.cancelled() and self._task.exception() is None:
            landed = self._task.result()
            if isinstance(landed, Rest):  # who has just been given it takes it before this runs
                self._dropping = asyncio.create_task(landed.drop())


class Flights:
    """Those that may be joined, by what they ask."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, Flight] = {}

    def get(self, key: Hashable) -> Flight | None:
        return self._under_way.get(key)

    def add(self, key: Hashable, flight: Flight) -> None:
        self._under_way[key] = flight

    def remove(self, key: Hashable, watch: Watch) -> None:
        """The flight with that watch, if it still is the one of the key."""
        flight = self._under_way.get(key)
        if flight is not None and flight.watch is watch:
            del self._under_way[key]
