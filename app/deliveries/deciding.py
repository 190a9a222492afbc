"""`Decider`: a person decides that something is sent once more, or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from app.audit import store as audit
from app.audit.event import AuditEvent
from app.clock import Clock
from app.db import Database, Tx
from app.deliveries import claim_store
from app.deliveries import deciding_store as store
from app.deliveries.delivery import DeliveryStatus
from app.deliveries.split import SPLIT
from app.deliveries.stored import StoredBatch, StoredDelivery
from app.errors import Conflict


class Decider:
    """Who may decide is the caller's to know; `actor` is a consumer's name."""

    def __init__(self, db: Database, clock: Clock, *, wake: Callable[[], None]) -> None:
        self._db = db
        self._clock = clock
        self._wake = wake

    async def replay(self, delivery: StoredDelivery, *, actor: str) -> None:
        """One that is dead or cancelled is due at once, with as many attempts as a new one has, and under the same id: the
        provider knows by it whether it was applied after all. Raises Conflict for any other."""
        async with self._in_turn(delivery.batch_id) as tx:
            due_at = self._clock.now() if delivery.batch_id is None else None
            if not await store.replay(tx, delivery.id, due_at=due_at):
                raise _cannot_be_replayed(delivery)
            if delivery.batch_id is not None:
                await store.go_on(tx, delivery.batch_id)
            await self._record(tx, "delivery.replayed", actor, delivery, {"delivery_id": str(delivery.id)})
        self._wake()

    async def cancel(self, delivery: StoredDelivery, *, actor: str) -> None:
        """One that waits is never sent. Raises Conflict for one that is being sent, or has arrived or died. May be repeated."""
        if delivery.status is DeliveryStatus.CANCELLED and delivery.code != SPLIT:
            return
        async with self._in_turn(delivery.batch_id) as tx:
            if not await store.cancel(tx, delivery.id):
                raise _cannot_be_cancelled(delivery)
            await self._record(tx, "delivery.cancelled", actor, delivery, {"delivery_id": str(delivery.id)})
        self._wake()

    async def replay_dead(self, batch: StoredBatch, *, actor: str) -> int:
        """All of the batch that is dead is sent again; how many records that are. A batch that was cancelled goes on with
        them."""
        async with self._in_turn(batch.id) as tx:
            records = await store.replay_dead(tx, batch.id)
            if records:
                await store.go_on(tx, batch.id)
                told = {"batch_id": str(batch.id), "records": records}
                await self._record(tx, "delivery_batch.replayed", actor, batch, told)
        self._wake()
        return records

    async def cancel_waiting(self, batch: StoredBatch, *, actor: str) -> int:
        """All of the batch that waits is never sent; how many records that are. What is being sent at this moment ends as it
        ends. May be repeated."""
        async with self._in_turn(batch.id) as tx:
            records = await store.cancel_waiting(tx, batch.id)
            if records:
                told = {"batch_id": str(batch.id), "records": records}
                await self._record(tx, "delivery_batch.cancelled", actor, batch, told)
        return records

    @asynccontextmanager
    async def _in_turn(self, batch_id: UUID | None) -> AsyncIterator[Tx]:
        """A transaction in which nobody else takes of the batch; after it, as many of it are due as it has places."""
        async with self._db.begin() as tx:
            if batch_id is None:
                yield tx
                return
            await claim_store.lock_batch(tx, batch_id)
            yield tx
            await claim_store.give_turns(tx, batch_id)

    async def _record(
        self, tx: Tx, action: str, actor: str, about: StoredDelivery | StoredBatch, told: Mapping[str, Any]
    ) -> None:
        details = {"account": about.account, **told}
        event = AuditEvent(action, actor, about.provider, about.user_id, details=details)
        await audit.record(tx, event, now=self._clock.now())


def _cannot_be_replayed(delivery: StoredDelivery) -> Conflict:
    if delivery.code == SPLIT:
        return Conflict(
            "This delivery was rejected and sent again in two halves. Replay those of them that are dead."
        )
    return Conflict(
        "Only a delivery that is dead or cancelled can be replayed. This one is on its way, or has arrived."
    )


def _cannot_be_cancelled(delivery: StoredDelivery) -> Conflict:
    if delivery.status in {DeliveryStatus.QUEUED, DeliveryStatus.RETRYING, DeliveryStatus.SENDING}:
        return Conflict("This delivery is being sent at this moment. Look at it again shortly.")
    return Conflict("This delivery has ended, so that there is nothing left to be cancelled.")
