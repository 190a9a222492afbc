"""The SQL of forgetting: deliveries that ended long ago, batches as soon as all of them did, and consumers' own keys.

A batch goes as a whole, since its counts have to add up as long as it can be looked at:

    old_batches      those that are old enough, page by page
    lock_ended       of these the ones that are over; then nobody decides about them any more
    forget           they cannot be found from now on
    sweep_forgotten  their deliveries go, in parts, and with the last one the batch

The batch is locked before its deliveries, as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Uuid,
    and_,
    any_,
    delete,
    func,
    literal,
    literal_column,
    select,
    tuple_,
    update,
)

from app.db import Tx
from app.deliveries.claim_store import array_of, began, clock
from app.deliveries.delivery import DeliveryStatus
from app.tables import deliveries, delivery_batches, idempotency_keys

_D, _B = deliveries.c, delivery_batches.c
_ROW: ColumnElement[Any] = literal_column("idempotency_keys.ctid")  # they are locked, so that it stays
_BATCHES_AT_ONCE = 100
# Written into statements: of a parameter PostgreSQL cannot know that a partial index has all there is.
_KEEPS_A_BATCH = _D.status.in_(
    [
        literal(each.value, literal_execute=True)
        for each in (
            DeliveryStatus.QUEUED,
            DeliveryStatus.SENDING,
            DeliveryStatus.RETRYING,
            DeliveryStatus.DEAD,
        )
    ]
)

Place = tuple[datetime, UUID]


async def sweep(tx: Tx, status: DeliveryStatus, *, kept_for: timedelta, limit: int) -> int:
    """Deletes some that ended so longer ago and are not of a batch, the oldest first, with their attempts; how many."""
    old = (
        select(_D.id)
        .where(
            _D.status == literal(status.value, literal_execute=True),
            _D.batch_id.is_(None),
            _D.ended_at < began() - kept_for,
        )
        .order_by(_D.ended_at)
        .limit(literal(limit, literal_execute=True))  # written into it: a tenth of all would be read through
        .with_for_update(skip_locked=True)
    )
    return (await tx.execute(delete(deliveries).where(_D.id == any_(array_of(old))))).rowcount


async def old_batches(tx: Tx, *, after: Place | None, kept_for: timedelta, limit: int) -> list[Place]:
    """Up to `limit` that were made longer ago, the oldest first, behind that place."""
    query = (
        select(_B.created_at, _B.id)
        .where(_B.created_at < began() - kept_for, _B.forgotten_at.is_(None))
        .order_by(_B.created_at, _B.id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(_B.created_at, _B.id) > tuple_(*map(literal, after)))
    return [(row.created_at, row.id) for row in await tx.execute(query)]


async def lock_ended(tx: Tx, batch_ids: Sequence[UUID], *, kept_for: timedelta) -> list[UUID]:
    """Which of them are over; locked, but for those that somebody else holds."""
    query = select(_B.id).where(_is_one_of(batch_ids), _is_over(kept_for)).with_for_update(skip_locked=True)
    return list(await tx.scalars(query))


async def forget(tx: Tx, batch_ids: Sequence[UUID], *, kept_for: timedelta) -> int:
    """Those that are over still, now that they are locked, are there for nobody any more; how many."""
    query = update(delivery_batches).where(_is_one_of(batch_ids), _is_over(kept_for))
    return (await tx.execute(query.values(forgotten_at=clock()))).rowcount


async def sweep_forgotten(tx: Tx, *, limit: int) -> int:
    """Deletes up to `limit` deliveries of batches that are forgotten, and those of the batches that have none left; in how many
    batches it worked, 0 where others do or there are none."""
    forgotten = (
        select(_B.id)
        .where(_B.forgotten_at.is_not(None))
        .order_by(_B.forgotten_at)
        .limit(_BATCHES_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    batch_ids = list(await tx.scalars(forgotten))
    if batch_ids:
        some = select(_D.id).where(_D.batch_id == any_(_array(batch_ids))).limit(limit)
        await tx.execute(delete(deliveries).where(_D.id == any_(array_of(some))))
        has_more = select(_D.id).where(_D.batch_id == _B.id).exists()
        await tx.execute(delete(delivery_batches).where(_is_one_of(batch_ids), ~has_more))
    return len(batch_ids)


async def sweep_keys(tx: Tx, *, kept_for: timedelta, limit: int) -> int:
    """Deletes some keys that came longer ago; how many."""
    created_at = idempotency_keys.c.created_at
    old = (
        select(_ROW)
        .where(created_at < began() - kept_for)
        .order_by(created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    gone = delete(idempotency_keys).where(any_(func.array(old.scalar_subquery())) == _ROW)
    return (await tx.execute(gone)).rowcount


def _is_one_of(batch_ids: Sequence[UUID]) -> ColumnElement[bool]:
    return _B.id == any_(_array(batch_ids))


def _array(ids: Sequence[UUID]) -> ColumnElement[Any]:
    return literal(list(ids), ARRAY(Uuid))


def _is_over(kept_for: timedelta) -> ColumnElement[bool]:
    """All of it ended so long ago, and none of it is dead, which a person has still to decide about."""
    keeps_it = select(_D.id).where(_D.batch_id == _B.id, _KEEPS_A_BATCH).exists()
    ended_lately = select(_D.id).where(_D.batch_id == _B.id, _D.ended_at >= began() - kept_for).exists()
    return and_(~keeps_it, ~ended_lately)
