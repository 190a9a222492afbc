"""`Progress`: batches watched as they go on, for any number of listeners with one look at PostgreSQL for each batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from uuid import UUID

from app.clock import Clock
from app.db import Database
from app.deliveries import reading_store as store
from app.deliveries.stored import StoredBatch
from app.drain import Drain
from app.errors import Overloaded
from app.outages import DatabaseUnavailable
from app.telemetry import logger

log = logger(__name__)

MOST_LISTENERS = 200  # of a replica: each keeps a connection
LONGEST_SECONDS = 600.0  # after which a listener comes back, and shows its key again
HEARTBEAT_SECONDS = 15.0
_LOOK_SECONDS = 1.0
_AWAY_SECONDS = 3.0


class _Watch:
    """One batch, looked at as long as somebody listens."""

    def __init__(self, batch: StoredBatch) -> None:
        self.batch: StoredBatch | None = batch
        self.turns = 0
        self.listeners = 0
        self.turned = asyncio.Condition()
        self.looking: asyncio.Task[None] | None = None


class Progress:
    """Streams of what a batch has come to."""

    def __init__(self, db: Database, drain: Drain, clock: Clock) -> None:
        self._db = db
        self._drain = drain
        self._clock = clock
        self._watches: dict[UUID, _Watch] = {}
        self._listeners = 0

    def _require_room(self) -> None:
        if self._drain.begun or self._listeners >= MOST_LISTENERS:
            raise Overloaded(
                "Too many listen to batches at the moment. Look at the batch itself.", retry_after=5
            )

    async def of(self, batch: StoredBatch) -> AsyncGenerator[StoredBatch | None, None]:
        """The batch at once, and each time that something of it has changed; None where nothing did for a while. Ends with the
        batch, and where it had better be asked anew: after ten minutes, when this replica leaves, or when it could not look.

        With the first one a place is taken. Raises Overloaded where as many listen as can, and while this replica is leaving."""
        self._require_room()
        watch = self._watches.setdefault(batch.id, _Watch(batch))
        watch.listeners += 1
        self._listeners += 1
        if watch.looking is None:
            watch.looking = asyncio.create_task(self._look(batch.id, watch))
        try:
            async for each in self._turns(watch):
                yield each
        finally:
            self._listeners -= 1
            watch.listeners -= 1
            if not watch.listeners:
                watch.looking.cancel()
                if self._watches.get(batch.id) is watch:
                    del self._watches[batch.id]

    async def _turns(self, watch: _Watch) -> AsyncIterator[StoredBatch | None]:
        until = self._clock.monotonic() + LONGEST_SECONDS
        seen = -1
        while not self._drain.begun and self._clock.monotonic() < until:
            if watch.batch is None:  # it is gone, or cannot be looked at
                return
            if watch.turns == seen:
                yield None
            else:
                seen = watch.turns
                yield watch.batch
                if watch.batch.has_ended:
                    return
            await self._turn(watch, seen)

    async def _turn(self, watch: _Watch, seen: int) -> None:
        """Until it has changed, or a heartbeat is due, or this replica leaves."""
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS), watch.turned:
                await watch.turned.wait_for(lambda: watch.turns != seen or self._drain.begun)
        except TimeoutError:
            pass

    async def _look(self, batch_id: UUID, watch: _Watch) -> None:
        try:
            await self._look_on(batch_id, watch)
        except Exception:  # nobody would hear of it, and the listeners would wait for nothing
            log.exception("progress.crashed", batch_id=str(batch_id))
            if self._watches.get(batch_id) is watch:
                del self._watches[batch_id]
            async with watch.turned:
                watch.batch, watch.turns = None, watch.turns + 1
                watch.turned.notify_all()

    async def _look_on(self, batch_id: UUID, watch: _Watch) -> None:
        while watch.batch is not None and not watch.batch.has_ended:
            await self._clock.sleep(_LOOK_SECONDS)
            try:
                async with self._db.begin() as tx:
                    found = await store.find_batch(tx, batch_id)
            except DatabaseUnavailable:
                await self._clock.sleep(_AWAY_SECONDS)
                continue
            async with watch.turned:
                if found is None or watch.batch is None or found.records != watch.batch.records:
                    watch.batch, watch.turns = found, watch.turns + 1
                watch.turned.notify_all()
