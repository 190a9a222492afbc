"""The SQL of what people decide about deliveries: once more, or not at all. Each statement decides by the state that it finds."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update

from app.db import Tx
from app.deliveries.delivery import DeliveryStatus
from app.deliveries.wanted import DEFAULT_ATTEMPTS
from app.tables import deliveries, delivery_batches

_D = deliveries.c
_WAITS = _D.status.in_([DeliveryStatus.QUEUED, DeliveryStatus.RETRYING])
_WHOLE = _D.records > 0  # a rejected one whose halves are on their way has none left
_AGAIN: dict[str, Any] = {
    "status": DeliveryStatus.QUEUED,
    "max_attempts": _D.attempts + DEFAULT_ATTEMPTS,
    "unknowns": func.least(_D.unknowns, 1),  # it may have arrived still, and is tried twice more where it may
    "put_back_since": None,
    "ended_at": None,
    "updated_at": func.clock_timestamp(),
}
_NOT_AT_ALL: dict[str, Any] = {
    "status": DeliveryStatus.CANCELLED,
    "next_attempt_at": None,
    "ended_at": func.clock_timestamp(),
    "updated_at": func.clock_timestamp(),
}


async def replay(tx: Tx, delivery_id: UUID, *, due_at: datetime | None) -> bool:
    """Whether it had ended without arriving: then it is queued again, under the same id. `due_at` None: it waits for its turn
    in its batch."""
    ended = _D.status.in_([DeliveryStatus.DEAD, DeliveryStatus.CANCELLED])
    done = await tx.execute(
        update(deliveries)
        .where(_D.id == delivery_id, ended, _WHOLE)
        .values({**_AGAIN, "next_attempt_at": due_at})
    )
    return done.rowcount == 1


async def cancel(tx: Tx, delivery_id: UUID) -> bool:
    """Whether it was waiting: then it is not sent any more."""
    done = await tx.execute(update(deliveries).where(_D.id == delivery_id, _WAITS).values(_NOT_AT_ALL))
    return done.rowcount == 1


async def go_on(tx: Tx, batch_id: UUID) -> None:
    """The batch is cancelled no more: what is sent of it from now on may be tried again."""
    b = delivery_batches.c
    await tx.execute(update(delivery_batches).where(b.id == batch_id).values(cancelled_at=None))


async def replay_dead(tx: Tx, batch_id: UUID) -> int:
    """All dead ones of the batch wait for their turn again. How many records they have."""
    again = (
        update(deliveries)
        .where(_D.batch_id == batch_id, _D.status == DeliveryStatus.DEAD, _WHOLE)
        .values(_AGAIN)
        .returning(_D.records)
        .cte("again")
    )
    return int((await tx.execute(select(func.coalesce(func.sum(again.c.records), 0)))).scalar_one())


async def cancel_waiting(tx: Tx, batch_id: UUID) -> int:
    """All that waits of the batch is not sent, nor tried again what is being sent. How many records that are."""
    b = delivery_batches.c
    await tx.execute(
        update(delivery_batches)
        .where(b.id == batch_id, b.cancelled_at.is_(None))
        .values(cancelled_at=func.clock_timestamp())
    )
    ended = (
        update(deliveries)
        .where(_D.batch_id == batch_id, _WAITS)
        .values(_NOT_AT_ALL)
        .returning(_D.records)
        .cte("ended")
    )
    return int((await tx.execute(select(func.coalesce(func.sum(ended.c.records), 0)))).scalar_one())
