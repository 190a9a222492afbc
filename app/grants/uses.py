"""When grants were last asked for. Noted in memory and written together, since a fetch must not cost a write."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from uuid import UUID

from app.clock import Clock
from app.db import Database
from app.grants import store

_MOST = 100_000  # while PostgreSQL is away
_AT_ONCE = 1000  # the rows of a statement are locked while it runs, and the scheduler passes locked ones over


class Uses:
    """Notes uses, and flushes what it has noted. What a process that is killed had noted since then is lost."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._noted: OrderedDict[UUID, datetime] = OrderedDict()
        self._flushing = asyncio.Lock()

    def note(self, grant_id: UUID) -> None:
        """The grant's token is being answered now. Costs no IO."""
        self._noted[grant_id] = self._clock.now()
        self._noted.move_to_end(grant_id)
        if len(self._noted) > _MOST:
            self._noted.popitem(last=False)

    async def flush(self) -> None:
        """Writes `last_used_at`. Rows that others hold at this moment are left for the next flush, and so is
        everything not yet written where PostgreSQL is away. Raises DatabaseUnavailable."""
        async with self._flushing:
            noted = iter(list(self._noted.items()))
            while batch := dict(islice(noted, _AT_ONCE)):
                await self._write(batch)

    async def _write(self, batch: Mapping[UUID, datetime]) -> None:
        async with self._db.begin() as tx:
            held = await store.note_uses(tx, batch)
        for grant_id, at in batch.items():
            if grant_id not in held and self._noted.get(grant_id) == at:  # else used again meanwhile
                del self._noted[grant_id]
