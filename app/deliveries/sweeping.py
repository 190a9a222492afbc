"""What is forgotten of deliveries: those that ended long ago. Dead ones stay until a person decides."""

from __future__ import annotations

from datetime import timedelta

from app.db import Database
from app.deliveries import sweep_store
from app.deliveries.delivery import DeliveryStatus
from app.drain import Drain

EVERY = timedelta(minutes=10)
KEYS_KEPT_FOR = timedelta(hours=24)
_AT_ONCE = 500
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
            swept = _AT_ONCE
            while swept == _AT_ONCE and not self._drain.begun:
                async with self._db.begin() as tx:
                    swept = await sweep_store.sweep(tx, status, kept_for=self._kept_for, limit=_AT_ONCE)
        swept = _AT_ONCE
        while swept == _AT_ONCE and not self._drain.begun:
            async with self._db.begin() as tx:
                swept = await sweep_store.sweep_keys(tx, kept_for=KEYS_KEPT_FOR, limit=_AT_ONCE)
