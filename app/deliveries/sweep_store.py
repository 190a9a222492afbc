"""The SQL of forgetting: deliveries that ended long ago, their batches with the last of them, and consumers' own keys."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, literal, select

from app.db import Tx
from app.deliveries.claim_store import began
from app.deliveries.delivery import DeliveryStatus
from app.tables import deliveries, delivery_batches, idempotency_keys


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
    gone = delete(deliveries).where(deliveries.c.id.in_(old)).returning(deliveries.c.batch_id)
    batch_ids = list(await tx.scalars(gone))
    has_more = select(deliveries.c.id).where(deliveries.c.batch_id == delivery_batches.c.id).exists()
    await tx.execute(
        delete(delivery_batches).where(delivery_batches.c.id.in_({*batch_ids} - {None}), ~has_more)
    )
    return len(batch_ids)


async def sweep_keys(tx: Tx, *, kept_for: timedelta, limit: int) -> int:
    """Deletes some keys that came longer ago; how many."""
    keys = idempotency_keys
    old = (
        select(keys.c.consumer_id, keys.c.key_sha256)
        .where(keys.c.created_at < began() - kept_for)
        .order_by(keys.c.created_at)
        .limit(limit)
        .subquery()
    )
    which = (keys.c.consumer_id == old.c.consumer_id, keys.c.key_sha256 == old.c.key_sha256)
    return (await tx.execute(delete(keys).where(*which))).rowcount
