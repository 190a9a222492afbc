"""The SQL of looking at deliveries and batches.

Each list is read from an index in its order, the latest first. Where the index does not begin with what is asked for (states
of a batch, consumers for an administrator), it is read from each of its parts, and the parts put in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, func, lateral, or_, select, true, union_all

from app.db import Tx
from app.deliveries.delivery import DeliveryStatus
from app.deliveries.stored import DeliveryAttempt, DeliverySelection, Sealed, StoredBatch, StoredDelivery
from app.tables import deliveries, delivery_attempts, delivery_batches

_DELIVERY = [deliveries.c[name] for name in StoredDelivery.__slots__]
_ATTEMPT = [delivery_attempts.c[name] for name in DeliveryAttempt.__slots__]
_BATCH = [delivery_batches.c[name] for name in StoredBatch.__slots__ if name != "records"]
_IS_THERE = delivery_batches.c.forgotten_at.is_(None)


async def find(tx: Tx, delivery_id: UUID) -> tuple[StoredDelivery, Sealed] | None:
    """One, with what is sealed in it."""
    query = select(*_DELIVERY, deliveries.c.sealed_request, deliveries.c.sealed_response)
    row = (await tx.execute(query.where(deliveries.c.id == delivery_id))).one_or_none()
    if row is None:
        return None
    return _delivery(row[:-2]), Sealed(row.sealed_request, row.sealed_response)


async def attempts(tx: Tx, delivery_id: UUID, *, limit: int) -> list[DeliveryAttempt]:
    """The last ones, in their order."""
    a = delivery_attempts.c
    query = select(*_ATTEMPT).where(a.delivery_id == delivery_id).order_by(a.number.desc()).limit(limit)
    rows = [DeliveryAttempt(*row) for row in await tx.execute(query)]
    return rows[::-1]


async def listed(
    tx: Tx, wanted: DeliverySelection, *, before: UUID | None, limit: int
) -> list[StoredDelivery]:
    """Up to `limit`, the latest first."""
    rows = await tx.execute(_in_order(wanted, before, limit))
    return [_delivery(row) for row in rows]


def _in_order(wanted: DeliverySelection, before: UUID | None, limit: int) -> Select[Any]:
    conditions = [*_conditions(wanted, deliveries.c)]
    if before is not None:
        conditions.append(deliveries.c.id < before)
    query = select(*_DELIVERY).where(*conditions).order_by(deliveries.c.id.desc()).limit(limit)
    if wanted.batch_id is not None:
        statuses = [wanted.status] if wanted.status else list(DeliveryStatus)
        parts = [
            query.where(deliveries.c.batch_id == wanted.batch_id, deliveries.c.status == status).subquery()
            for status in statuses
        ]
        return _merged([select(part) for part in parts], limit)
    if wanted.status is None:
        if wanted.consumer_id is not None:
            query = query.where(deliveries.c.consumer_id == wanted.consumer_id)
        return query
    query = query.where(deliveries.c.status == wanted.status)
    if wanted.consumer_id is not None:
        return query.where(deliveries.c.consumer_id == wanted.consumer_id)
    owners = consumers_of()
    part = lateral(query.where(deliveries.c.consumer_id == owners.c.consumer_id).correlate(owners))
    return select(*part.c).select_from(owners.join(part, true())).order_by(part.c.id.desc()).limit(limit)


def _merged(parts: Sequence[Select[Any]], limit: int) -> Select[Any]:
    every = union_all(*parts).subquery()
    return select(*every.c).order_by(every.c.id.desc()).limit(limit)


def consumers_of() -> Any:
    """Every consumer that has a delivery, found by a step of the index for each."""
    d = deliveries.c
    first = select(d.consumer_id).order_by(d.consumer_id).limit(1).scalar_subquery()
    found = select(first.label("consumer_id")).cte("owners", recursive=True)
    following = (
        select(d.consumer_id)
        .where(d.consumer_id > found.c.consumer_id)
        .order_by(d.consumer_id)
        .limit(1)
        .correlate(found)
        .scalar_subquery()
    )
    owners = found.union_all(select(following).where(found.c.consumer_id.is_not(None)))
    # The last step finds nobody; asked for nobody's rows, PostgreSQL would look at all of them.
    return select(owners.c.consumer_id).where(owners.c.consumer_id.is_not(None)).subquery("owners_known")


def _conditions(wanted: DeliverySelection, row: Any) -> Iterator[ColumnElement[bool]]:
    for name in ("provider", "user_id", "category"):
        if (value := getattr(wanted, name)) is not None:
            yield row[name] == value
    if wanted.batch_id is not None and wanted.consumer_id is not None:
        yield row.consumer_id == wanted.consumer_id
    yield from visible(wanted, row)


def visible(wanted: DeliverySelection, row: Any) -> Iterator[ColumnElement[bool]]:
    """What the consumer may see of rows with a provider and a user."""
    if wanted.visible_providers is not None:
        yield row.provider.in_(wanted.visible_providers)
    if wanted.visible_users is not None:
        exact = [name for name in wanted.visible_users if not name.endswith("*")]
        prefixes = [name[:-1] for name in wanted.visible_users if name.endswith("*")]
        yield or_(row.user_id.in_(exact), *(func.starts_with(row.user_id, prefix) for prefix in prefixes))


async def find_batch(tx: Tx, batch_id: UUID) -> StoredBatch | None:
    """One, with its counts."""
    found = await _with_counts(tx, select(*_BATCH).where(_IS_THERE, delivery_batches.c.id == batch_id))
    return found[0] if found else None


async def batches(tx: Tx, wanted: DeliverySelection, *, before: UUID | None, limit: int) -> list[StoredBatch]:
    """Up to `limit`, the latest first."""
    b = delivery_batches.c
    query = select(*_BATCH).where(_IS_THERE, *visible(wanted, b)).order_by(b.id.desc()).limit(limit)
    for name in ("consumer_id", "provider", "user_id"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(b[name] == value)
    if before is not None:
        query = query.where(b.id < before)
    return await _with_counts(tx, query)


async def _with_counts(tx: Tx, query: Select[Any]) -> list[StoredBatch]:
    """Counted in the index alone: one entry for each delivery."""
    rows = (await tx.execute(query)).all()
    counts: dict[UUID, dict[DeliveryStatus, int]] = {row.id: {} for row in rows}
    d = deliveries.c
    counted = (
        select(d.batch_id, d.status, func.sum(d.records).label("records"))
        .where(d.batch_id.in_(counts))
        .group_by(d.batch_id, d.status)
    )
    for row in await tx.execute(counted):
        counts[row.batch_id][DeliveryStatus(row.status)] = row.records
    return [StoredBatch(**row._mapping, records=counts[row.id]) for row in rows]


def _delivery(row: Row[Any] | Sequence[Any]) -> StoredDelivery:
    fields = dict(zip(StoredDelivery.__slots__, row, strict=True))
    fields["status"] = DeliveryStatus(fields["status"])
    fields["retry_on"] = None if fields["retry_on"] is None else tuple(fields["retry_on"])
    return StoredDelivery(**fields)
