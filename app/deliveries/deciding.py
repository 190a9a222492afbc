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
from app.deliveries import deciding_store as store
from app.deliveries import turn_store
from app.deliveries.deciding_store import BatchState, Part
from app.deliveries.delivery import DeliveryStatus
from app.deliveries.reading import no_such_batch, no_such_delivery
from app.deliveries.split import SPLIT
from app.deliveries.stored import StoredBatch, StoredDelivery
from app.errors import Conflict, NotFound

PART = 2000  # deliveries of one transaction: some 100 ms of PostgreSQL's
_BATCHES_AT_ONCE = 100


class Decider:
    """Who may decide is the caller's to know; `actor` is a consumer's name."""

    def __init__(self, db: Database, clock: Clock, *, wake: Callable[[], None]) -> None:
        self._db = db
        self._clock = clock
        self._wake = wake

    async def replay(self, delivery: StoredDelivery, *, actor: str) -> None:
        """One that is dead or cancelled is due at once, with as many attempts as a new one has, and under the same id: the
        provider knows by it whether it was applied after all. Raises Conflict for any other, and NotFound."""
        if delivery.batch_id is not None:
            await self._end_waiting(delivery.batch_id)
        async with self._in_turn(delivery.batch_id, no_such_delivery) as (tx, state):
            if delivery.batch_id is not None:
                await _go_on(tx, delivery.batch_id, state)
            due_at = self._clock.now() if delivery.batch_id is None else None
            if not await store.replay(tx, delivery.id, due_at=due_at):
                raise _cannot_be_replayed(delivery)
            await self._record(tx, "delivery.replayed", actor, delivery, {"delivery_id": str(delivery.id)})
        self._wake()

    async def cancel(self, delivery: StoredDelivery, *, actor: str) -> None:
        """One that waits is never sent. Raises Conflict for one that is being sent, or has arrived or died, and NotFound. May be
        repeated."""
        if delivery.status is DeliveryStatus.CANCELLED and delivery.code != SPLIT:
            return
        async with self._in_turn(delivery.batch_id, no_such_delivery) as (tx, _):
            if not await store.cancel(tx, delivery.id):
                raise _cannot_be_cancelled(delivery)
            await self._record(tx, "delivery.cancelled", actor, delivery, {"delivery_id": str(delivery.id)})
        self._wake()

    async def replay_dead(self, batch: StoredBatch, *, actor: str) -> int:
        """All of the batch that is dead is sent again; how many records that are. A batch that was cancelled goes on with
        them. Done in parts: whoever was interrupted repeats it. Raises Conflict and NotFound."""
        await self._end_waiting(batch.id)
        part = await self._replay_part(batch, after=None, actor=actor)
        records = part.records
        while part.last is not None:
            part = await self._replay_part(batch, after=part.last, actor=actor)
            records += part.records
        return records

    async def cancel_waiting(self, batch: StoredBatch, *, actor: str) -> int:
        """All of the batch that waits is never sent; how many records that are. What is being sent at this moment ends as it
        ends. What waits is ended in parts: it is not sent either where that is interrupted. May be repeated. Raises NotFound.
        """
        async with self._in_turn(batch.id, no_such_batch) as (tx, state):
            records = 0 if state is BatchState.CANCELLED else await store.waiting_records(tx, batch.id)
            await store.stop(tx, batch.id)
            if records:
                told = {"batch_id": str(batch.id), "records": records}
                await self._record(tx, "delivery_batch.cancelled", actor, batch, told)
        return await self._end_waiting(batch.id)

    async def end_half_cancelled(self) -> None:
        """Ends what waits of batches in whose cancelling somebody was interrupted. Raises DatabaseUnavailable."""
        async with self._db.begin() as tx:
            batch_ids = await store.half_cancelled(tx, limit=_BATCHES_AT_ONCE)
        for batch_id in batch_ids:
            await self._end_waiting(batch_id)

    async def _end_waiting(self, batch_id: UUID) -> int:
        """As long as the batch is cancelled, ends what waits of it; how many records that are."""
        records, is_done = 0, False
        while not is_done:
            async with self._db.begin() as tx:
                if await store.lock_batch(tx, batch_id) is not BatchState.CANCELLED:
                    break
                part = await store.cancel_waiting(tx, batch_id, limit=PART)
            records, is_done = records + part.records, part.last is None
        return records

    async def _replay_part(self, batch: StoredBatch, *, after: UUID | None, actor: str) -> Part:
        async with self._in_turn(batch.id, no_such_batch) as (tx, state):
            if after is not None and state is BatchState.CANCELLED:  # by somebody who decided later
                return Part(0, None)
            await _go_on(tx, batch.id, state)
            part = await store.replay_dead(tx, batch.id, after=after, limit=PART)
            if part.records:
                told = {"batch_id": str(batch.id), "records": part.records}
                await self._record(tx, "delivery_batch.replayed", actor, batch, told)
        self._wake()
        return part

    @asynccontextmanager
    async def _in_turn(
        self, batch_id: UUID | None, gone: Callable[[], NotFound]
    ) -> AsyncIterator[tuple[Tx, BatchState]]:
        """A transaction in which nobody else takes of the batch; after it, as many of it are due as it has places."""
        async with self._db.begin() as tx:
            if batch_id is None:
                yield tx, BatchState.GOES_ON
                return
            state = await store.lock_batch(tx, batch_id)
            if state is BatchState.GONE:
                raise gone()
            yield tx, state
            await turn_store.give_turns(tx, batch_id)

    async def _record(
        self, tx: Tx, action: str, actor: str, about: StoredDelivery | StoredBatch, told: Mapping[str, Any]
    ) -> None:
        details = {"account": about.account, **told}
        event = AuditEvent(action, actor, about.provider, about.user_id, details=details)
        await audit.record(tx, event, now=self._clock.now())


async def _go_on(tx: Tx, batch_id: UUID, state: BatchState) -> None:
    """Raises Conflict while it is being cancelled: what waits of it then would be sent after all."""
    if state is not BatchState.CANCELLED:
        return
    if await store.waiting_records(tx, batch_id):
        raise Conflict("This batch is being cancelled at this moment. Look at it again shortly.")
    await store.go_on(tx, batch_id)


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
