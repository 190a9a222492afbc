"""The SQL of forgetting: deliveries that ended long ago, their batches with the last of them, and consumers' own keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Uuid, any_, delete, func, literal, literal_column, select

from app.db import Tx
from app.deliveries.claim_store import array_of, began
from app.deliveries.delivery import DeliveryStatus
from app.tables import deliveries, delivery_batches, idempotency_keys

_ROW: ColumnElement[Any] = literal_column("idempotency_keys.ctid")  # they are locked, so that it stays


async def sweep(tx: Tx, status: DeliveryStatus, *, kept_for: timedelta, limit: int) -> int:
    """Deletes some that ended so longer ago, the oldest first, with their attempts; how many."""
    old = (
        select(deliveries.c.id)
        .where(
            deliveries.c.status == literal(status.value, literal_execute=True),
            deliveries.c.ended_at < began() - kept_for,
        )
        .order_by(deliveries.c.ended_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    gone = delete(deliveries).where(deliveries.c.id == any_(array_of(old))).returning(deliveries.c.batch_id)
    batch_ids = list(await tx.scalars(gone))
    ended = list({each for each in batch_ids if each is not None})
    has_more = select(deliveries.c.id).where(deliveries.c.batch_id == delivery_batches.c.id).exists()
    is_one = delivery_batches.c.id == any_(literal(ended, ARRAY(Uuid)))
    await tx.execute(delete(delivery_batches).where(is_one, ~has_more))
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
