"""When grants and API keys were last used. Noted in memory and written together, since a fetch must not cost a write."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Generic, TypeVar

from app.bounded import Bounded
from app.clock import Clock
from app.db import Database, Tx

K = TypeVar("K", bound=Hashable)

_MOST = 100_000  # while PostgreSQL is away
_AT_ONCE = 1000  # the rows of a statement are locked while it runs, and the scheduler passes locked ones over


class Uses(Generic[K]):
    """Notes uses, and flushes what it has noted. What a process that is killed had noted since then is lost."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        write: Callable[[Tx, Mapping[K, datetime]], Awaitable[Collection[K]]],
    ) -> None:
        """`write` stores when each was used last, and tells which of them others hold at this moment: those are left."""
        self._db = db
        self._write_to = write
        self._clock = clock
        self._noted: Bounded[K, float] = Bounded(_MOST)  # by the monotonic clock, the latest last
        self._flushing = asyncio.Lock()

    def note(self, used: K) -> None:
        """It is being used now. Costs no IO."""
        self._noted.put(used, self._clock.monotonic())

    async def flush(self) -> None:
        """Writes `last_used_at`. Rows that others hold at this moment are left for the next flush, and so is
        everything not yet written where PostgreSQL is away. Raises DatabaseUnavailable."""
        async with self._flushing:
            noted = iter(list(self._noted))
            while batch := list(islice(noted, _AT_ONCE)):
                await self._write({used: self._noted[used] for used in batch if used in self._noted})

    async def _write(self, batch: Mapping[K, float]) -> None:
        now, monotonic = self._clock.now(), self._clock.monotonic()
        times = {used: now - timedelta(seconds=monotonic - at) for used, at in batch.items()}
        async with self._db.begin() as tx:
            held = await self._write_to(tx, times)
        for used, at in batch.items():
            if used not in held and self._noted.get(used) == at:  # else used again meanwhile
                del self._noted[used]
