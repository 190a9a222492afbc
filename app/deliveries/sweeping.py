"""What is forgotten of deliveries: those that ended long ago, of a batch all at once. Dead ones stay until a person decides, and
with them their batches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

from app.db import Database, Tx
from app.deliveries import sweep_store
from app.deliveries.delivery import DeliveryStatus
from app.drain import Drain

EVERY = timedelta(minutes=10)
KEYS_KEPT_FOR = timedelta(hours=24)
_AT_ONCE = 500
_BATCHES_AT_ONCE = 200
_FORGOTTEN = (DeliveryStatus.DELIVERED, DeliveryStatus.CANCELLED)


class Sweeper:
    """Deletes a few at a time, so that nobody waits for it."""

    def __init__(self, db: Database, drain: Drain, *, kept_for: timedelta) -> None:
        self._db = db
        self._drain = drain
        self._kept_for = kept_for

    async def sweep(self) -> None:
        """All that is old enough. May be repeated, and done by several at once. Raises DatabaseUnavailable."""
        for status in _FORGOTTEN:
            some = partial(sweep_store.sweep, status=status, kept_for=self._kept_for, limit=_AT_ONCE)
            await self._while_full(some, full=_AT_ONCE)
        await self._forget_batches()
        await self._while_full(partial(sweep_store.sweep_forgotten, limit=_AT_ONCE), full=1)
        keys = partial(sweep_store.sweep_keys, kept_for=KEYS_KEPT_FOR, limit=_AT_ONCE)
        await self._while_full(keys, full=_AT_ONCE)

    async def _while_full(self, part: Callable[[Tx], Awaitable[int]], *, full: int) -> None:
        """A transaction for each part, until one has less to do."""
        done = full
        while done >= full and not self._drain.begun:
            async with self._db.begin() as tx:
                done = await part(tx)

    async def _forget_batches(self) -> None:
        """Looks at each old batch once."""
        after: sweep_store.Place | None = None
        while not self._drain.begun:
            async with self._db.begin() as tx:
                page = await sweep_store.old_batches(
                    tx, after=after, kept_for=self._kept_for, limit=_BATCHES_AT_ONCE
                )
                ended = await sweep_store.lock_ended(tx, [id for _, id in page], kept_for=self._kept_for)
                if ended:
                    await sweep_store.forget(tx, ended, kept_for=self._kept_for)
            if len(page) < _BATCHES_AT_ONCE:
                return
            after = page[-1]
