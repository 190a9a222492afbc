"""How many refreshes this replica runs at once at each provider: a caller's before the timetable's.

What is in flight when a process is killed may be lost at a provider whose refresh tokens work once, so there it is few.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.oauth.client import OAuthClient

AT_STRICT = 8
AT_OTHERS = 64


class Slots:
    """A lane for each provider, made when it is first asked for."""

    def __init__(self, *, at_strict: int = AT_STRICT, at_others: int = AT_OTHERS) -> None:
        self._at_strict = at_strict
        self._at_others = at_others
        self._lanes: dict[str, _Lane] = {}

    @asynccontextmanager
    async def of(self, client: OAuthClient, *, urgent: bool) -> AsyncIterator[None]:
        """A place for one refresh, waited for as long as it takes. `urgent`: before all who are not."""
        lane = self._lane(client)
        await lane.enter(urgent=urgent)
        try:
            yield
        finally:
            lane.leave()

    def size(self, client: OAuthClient) -> int:
        """How many places there are at the provider, taken or not."""
        return self._lane(client).size

    async def room(self, client: OAuthClient) -> int:
        """How many places are free, one at least, waited for behind all who want one. Takes none."""
        lane = self._lane(client)
        while not lane.free:
            await lane.enter(urgent=False)
            lane.leave()
        return lane.free

    def _lane(self, client: OAuthClient) -> _Lane:
        lane = self._lanes.get(client.name)
        if lane is None:
            size = self._at_strict if client.provider.is_strict else self._at_others
            lane = self._lanes[client.name] = _Lane(size)
        return lane


class _Lane:
    def __init__(self, size: int) -> None:
        self.size = size
        self.free = size
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._patient: deque[asyncio.Future[None]] = deque()

    async def enter(self, *, urgent: bool) -> None:
        if self.free:
            self.free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        (self._urgent if urgent else self._patient).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # it was given the place in the very moment in which it gave up
            raise

    def leave(self) -> None:
        """Hands the place to whoever is next."""
        for waiting in (self._urgent, self._patient):
            while waiting:
                turn = waiting.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self.free += 1
