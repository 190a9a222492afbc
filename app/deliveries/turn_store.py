"""The SQL of turns: of a batch only so many deliveries are due at once as may be sent at once. The others wait, without a time,
and get theirs when one of the batch has ended, or is not to be sent any more.

    lock_batch    first of all, in a statement of its own
    ...           what becomes of a delivery
    give_turns    to those that come next
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Update, any_, func, literal, select, update

from app.db import Tx
from app.deliveries.claim_store import array_of, began, free_places
from app.deliveries.delivery import DeliveryStatus
from app.tables import deliveries, delivery_batches

# Written into statements: of a parameter PostgreSQL cannot know that the partial index has all there is.
_WAITS = deliveries.c.status.in_(
    [literal(each.value, literal_execute=True) for each in (DeliveryStatus.QUEUED, DeliveryStatus.RETRYING)]
)


async def lock_batch(tx: Tx, batch_id: UUID) -> bool:
    """Until the transaction ends nobody takes of it, nor ends one. Whether it was cancelled. Before any of its deliveries is
    locked, so that no two wait for each other."""
    batches = delivery_batches.c
    query = select(batches.cancelled_at).where(batches.id == batch_id).with_for_update()
    return (await tx.execute(query)).scalar_one() is not None


async def leave_batch(tx: Tx, batch_id: UUID) -> None:
    """One of it is not being sent any more."""
    await tx.execute(_left(batch_id, 1))


async def give_turns(tx: Tx, batch_id: UUID, *, ended: int = 0) -> None:
    """So many of the batch's that wait are due now as it has places that nobody else waits for; `ended` are not being sent any
    more. One that is cancelled has none. Its row has to be locked: in an earlier statement, so that this one sees all that is true by then."""
    left = _left(batch_id, ended).returning(free_places().label("free")).cte("left")
    free = select(left.c.free).scalar_subquery()
    of_batch = (deliveries.c.batch_id == batch_id, _WAITS)
    at_hand = select(deliveries.c.id).where(*of_batch, deliveries.c.next_attempt_at <= began()).limit(free)
    due = select(func.count()).select_from(at_hand.subquery()).scalar_subquery()
    waits = (*of_batch, deliveries.c.next_attempt_at.is_(None))
    turns = (
        select(deliveries.c.id)
        .where(*waits)
        .order_by(deliveries.c.id)
        .limit(func.greatest(literal(0), free - due))
    )
    await tx.execute(
        update(deliveries)
        .where(deliveries.c.id == any_(array_of(turns)), *waits)
        .values(next_attempt_at=began())
    )


def _left(batch_id: UUID, ended: int) -> Update:
    return (
        update(delivery_batches)
        .where(delivery_batches.c.id == batch_id)
        .values(sending=delivery_batches.c.sending - ended)
    )
