"""The SQL of what people decide about deliveries: once more, or not at all. Each statement decides by the state that it finds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any
from uuid import UUID

from sqlalchemy import Select, any_, func, literal, select, update

from app.db import Tx
from app.deliveries.claim_store import array_of
from app.deliveries.delivery import DeliveryStatus
from app.deliveries.wanted import DEFAULT_ATTEMPTS
from app.tables import deliveries, delivery_batches

_D, _B = deliveries.c, delivery_batches.c
# Written into statements: of a parameter PostgreSQL cannot know that the partial index has all there is.
_WAITS = _D.status.in_(
    [literal(each.value, literal_execute=True) for each in (DeliveryStatus.QUEUED, DeliveryStatus.RETRYING)]
)
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


class BatchState(Enum):
    """Of one that is decided about."""

    GOES_ON = auto()
    CANCELLED = auto()
    GONE = auto()


@dataclass(frozen=True)
class Part:
    """How many records were changed; `last`: the last delivery, where there may be more behind it."""

    records: int
    last: UUID | None


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
    await tx.execute(update(delivery_batches).where(_B.id == batch_id).values(cancelled_at=None))


async def lock_batch(tx: Tx, batch_id: UUID) -> BatchState:
    """Until the transaction ends nobody else takes of it, ends one or forgets it."""
    query = select(_B.cancelled_at, _B.forgotten_at).where(_B.id == batch_id).with_for_update()
    row = (await tx.execute(query)).one_or_none()
    if row is None or row.forgotten_at is not None:
        return BatchState.GONE
    return BatchState.GOES_ON if row.cancelled_at is None else BatchState.CANCELLED


async def stop(tx: Tx, batch_id: UUID) -> None:
    """The batch is cancelled: none of it is claimed any more, nor tried again what is being sent. What waits is still to be
    ended."""
    query = update(delivery_batches).where(_B.id == batch_id, _B.cancelled_at.is_(None))
    await tx.execute(query.values(cancelled_at=func.clock_timestamp()))


async def replay_dead(tx: Tx, batch_id: UUID, *, after: UUID | None, limit: int) -> Part:
    """Up to `limit` dead ones of the batch behind `after` wait for their turn again."""
    dead = select(_D.id).where(_D.batch_id == batch_id, _D.status == DeliveryStatus.DEAD, _WHOLE)
    dead = dead.order_by(_D.id)
    return await _changed(tx, dead if after is None else dead.where(_D.id > after), limit, _AGAIN)


async def cancel_waiting(tx: Tx, batch_id: UUID, *, limit: int) -> Part:
    """Up to `limit` that wait of the batch are not sent."""
    return await _changed(tx, select(_D.id).where(_D.batch_id == batch_id, _WAITS), limit, _NOT_AT_ALL)


async def waiting_records(tx: Tx, batch_id: UUID) -> int:
    """How many records of the batch wait."""
    query = select(func.coalesce(func.sum(_D.records), 0)).where(_D.batch_id == batch_id, _WAITS)
    return int((await tx.execute(query)).scalar_one())


async def half_cancelled(tx: Tx, *, limit: int) -> list[UUID]:
    """Some batches that are cancelled, of which something waits all the same: whoever cancelled it was interrupted."""
    waits = select(_D.id).where(_D.batch_id == _B.id, _WAITS).exists()
    query = select(_B.id).where(_B.cancelled_at.is_not(None), _B.forgotten_at.is_(None), waits)
    return list(await tx.scalars(query.order_by(_B.cancelled_at).limit(limit)))


async def _changed(tx: Tx, wanted: Select[Any], limit: int, values: dict[str, Any]) -> Part:
    """Of a batch that is locked, so that those stay which they are."""
    query = update(deliveries).where(_D.id == any_(array_of(wanted.limit(limit)))).values(values)
    rows = (await tx.execute(query.returning(_D.id, _D.records))).all()
    last = max((row.id for row in rows), default=None)
    return Part(sum(row.records for row in rows), last if len(rows) == limit else None)
