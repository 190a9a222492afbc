"""How many calls may be under way at once, so that neither a grant nor a registration takes all connections to a provider.

Counted here, on this replica: it is our own connections that run out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import AsyncExitStack, asynccontextmanager

from app.errors import Overloaded

OF_GRANT = 16
OF_HOST = 48  # of 64 connections: the rest is for what is read whole
_PATIENCE_SECONDS = 5.0


class Crowd:
    """Belongs to one event loop."""

    def __init__(self, *, of_grant: int = OF_GRANT, of_host: int = OF_HOST) -> None:
        self._of_grant = of_grant
        self._of_host = of_host
        self._rooms: dict[Hashable, _Room] = {}

    @asynccontextmanager
    async def place(self, grant: Hashable, host: str, *, within: float) -> AsyncIterator[None]:
        """A place for one more call, for as long as it lasts; who came first has it first.

        Raises Overloaded where none is free within that many seconds, or five.
        """
        async with AsyncExitStack() as leaving:
            try:
                async with asyncio.timeout(min(within, _PATIENCE_SECONDS)):
                    await leaving.enter_async_context(self._inside(grant, self._of_grant))
                    await leaving.enter_async_context(self._inside(host, self._of_host))
            except TimeoutError:
                raise Overloaded(
                    "Too many calls to that API are under way, many of them long ones. Try again shortly.",
                    retry_after=1,
                ) from None
            yield

    @asynccontextmanager
    async def _inside(self, key: Hashable, most: int) -> AsyncIterator[None]:
        room = self._rooms.setdefault(key, _Room(most))
        room.here += 1
        try:
            async with room.places:
                yield
        finally:
            room.here -= 1
            if not room.here:
                del self._rooms[key]


class _Room:
    """`here`: who is in it, or waits to be."""

    def __init__(self, most: int) -> None:
        self.places = asyncio.Semaphore(most)
        self.here = 0
