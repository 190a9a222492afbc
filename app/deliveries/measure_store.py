"""The SQL of how deliveries go. Each number is read from a bounded part of an index, however many rows there are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Text, func, lateral, select, true

from app.db import Tx
from app.deliveries.delivery import DeliveryStatus
from app.deliveries.reading_store import consumers_of
from app.deliveries.stored import PENDING
from app.ids import least_at, time_of
from app.tables import deliveries

MOST = 20_000  # of the latest deliveries, for what is told of a time
MOST_COUNTED = 100_000  # of those that are pending or dead
_D = deliveries.c


@dataclass(frozen=True)
class Measured:
    """Of the deliveries that were accepted within a time; where there were more than `MOST`, of those since then only.
    `attempts_p95` None: none has ended."""

    since: datetime | None
    accepted: int
    delivered: int
    dead: int
    attempts_mean: float | None
    attempts_p95: int | None
    errors: dict[str, int]


@dataclass(frozen=True)
class Standing:
    """At this moment; `oldest_at`: when the oldest one that is pending was accepted."""

    pending: int
    dead: int
    oldest_at: datetime | None


async def measured(tx: Tx, consumer_id: UUID | None, *, now: datetime, within: timedelta) -> Measured:
    """Of the latest `MOST` within that time."""
    latest = (
        select(_D.id, _D.status, _D.attempts, _D.category)
        .where(_D.id >= least_at(now - within), _D.records > 0, *_own(consumer_id))
        .order_by(_D.id.desc())
        .limit(MOST)
        .subquery()
    )
    row = latest.c
    has_ended = row.status.in_([DeliveryStatus.DELIVERED, DeliveryStatus.DEAD])
    counted = select(
        func.count().label("accepted"),
        func.count().filter(row.status == DeliveryStatus.DELIVERED).label("delivered"),
        func.count().filter(row.status == DeliveryStatus.DEAD).label("dead"),
        func.avg(row.attempts).filter(has_ended).label("mean"),
        func.percentile_disc(0.95).within_group(row.attempts).filter(has_ended).label("p95"),
        func.min(row.id.cast(Text)).label("oldest"),
    )
    whole = (await tx.execute(counted.select_from(latest))).one()
    by_category = select(row.category, func.count()).where(row.category.is_not(None)).group_by(row.category)
    errors = {category: count for category, count in await tx.execute(by_category)}
    return Measured(
        since=None if whole.accepted < MOST else time_of(UUID(whole.oldest)),
        accepted=whole.accepted,
        delivered=whole.delivered,
        dead=whole.dead,
        attempts_mean=None if whole.mean is None else round(float(whole.mean), 2),
        attempts_p95=whole.p95,
        errors=errors,
    )


async def standing(tx: Tx, consumer_id: UUID | None) -> Standing:
    """Counted up to `MOST_COUNTED`."""
    pending = [await _count(tx, consumer_id, status) for status in PENDING]
    oldest = [await _oldest(tx, consumer_id, status) for status in PENDING]
    known = [time_of(each) for each in oldest if each is not None]
    return Standing(
        pending=min(sum(pending), MOST_COUNTED),
        dead=await _count(tx, consumer_id, DeliveryStatus.DEAD),
        oldest_at=min(known, default=None),
    )


async def _count(tx: Tx, consumer_id: UUID | None, status: DeliveryStatus) -> int:
    rows = _of_each(consumer_id, select(_D.id).where(_D.status == status).limit(MOST_COUNTED))
    counted = select(func.count()).select_from(rows.limit(MOST_COUNTED).subquery())
    return int((await tx.execute(counted)).scalar_one())


async def _oldest(tx: Tx, consumer_id: UUID | None, status: DeliveryStatus) -> UUID | None:
    rows = _of_each(consumer_id, select(_D.id).where(_D.status == status).order_by(_D.id).limit(1))
    first = rows.subquery()
    found: UUID | None = (
        await tx.execute(select(first.c.id).order_by(first.c.id).limit(1))
    ).scalar_one_or_none()
    return found


def _of_each(consumer_id: UUID | None, query: Select[Any]) -> Select[Any]:
    """Asked of the one consumer, or of each, so that the index leads to it."""
    if consumer_id is not None:
        return query.where(_D.consumer_id == consumer_id)
    owners = consumers_of()
    part = lateral(query.where(_D.consumer_id == owners.c.consumer_id).correlate(owners))
    return select(part.c.id).select_from(owners.join(part, true()))


def _own(consumer_id: UUID | None) -> list[ColumnElement[bool]]:
    return [] if consumer_id is None else [_D.consumer_id == consumer_id]
