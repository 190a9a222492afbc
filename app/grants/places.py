"""The refreshes that a tick runs at once, shared among the providers that have something due.

Each has its share: what it can use, or as many as any other has (max-min fairness). So a provider that is slow, or has
the most that is due, holds its share and no place more while others could use it; and it has all there are once it is
alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping


class Places:
    """`total` at once; a lane for each provider, by name, until it is closed."""

    def __init__(self, total: int, wants: Mapping[str, int]) -> None:
        """`wants`: how many each lane could use at most."""
        self._total = total
        self._free = asyncio.Semaphore(total)  # in turn, where there are more lanes than places
        self._wants = dict(wants)
        self._shares = shares(wants, total)
        self._held = dict.fromkeys(wants, 0)
        self._changed = {name: asyncio.Event() for name in wants}

    async def wait(self, lane: str) -> None:
        """Until one of the lane's share is free."""
        while self._held[lane] >= self._shares[lane]:
            self._changed[lane].clear()
            await self._changed[lane].wait()

    async def take(self, lane: str) -> None:
        """One of the lane's share, waited for in turn."""
        await self._free.acquire()
        self._held[lane] += 1

    def share(self, lane: str) -> int:
        """How many the lane may hold at the moment."""
        return self._shares[lane]

    def give_back(self, lane: str) -> None:
        self._free.release()
        self._held[lane] -= 1
        self._changed[lane].set()

    def close(self, lane: str) -> None:
        """It takes no more: its share is the others'."""
        del self._wants[lane]
        self._shares = shares(self._wants, self._total)
        for name in self._wants:
            self._changed[name].set()


def shares(wants: Mapping[str, int], total: int) -> dict[str, int]:
    """How many of `total` places each may hold: what it wants, or as many as any other; one at least."""
    left, given = total, {}
    for served, name in enumerate(sorted(wants, key=wants.__getitem__)):
        given[name] = min(wants[name], max(1, left // (len(wants) - served)))
        left -= given[name]
    return given
