"""`DeliveryMeasures`: how deliveries go."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from app.clock import Clock
from app.db import Database
from app.deliveries import measure_store as store
from app.deliveries.measure_store import Measured, Standing


class DeliveryMeasures:
    """Looks, and changes nothing."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def of(self, consumer_id: UUID | None, *, within: timedelta) -> tuple[Measured, Standing]:
        """Of one consumer's deliveries, or of all."""
        async with self._db.begin() as tx:
            measured = await store.measured(tx, consumer_id, now=self._clock.now(), within=within)
            return measured, await store.standing(tx, consumer_id)
