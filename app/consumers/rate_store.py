"""The SQL of rates: a token bucket for each consumer, which all replicas take from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import cast, func, literal, select, update
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION
from sqlalchemy.dialects.postgresql import insert as upsert

from app.db import Tx
from app.resilience import Rate
from app.tables import consumers, rate_limits


@dataclass(frozen=True)
class Taken:
    """`tokens` of those that were asked for; where there was none, the seconds until there is one."""

    tokens: int
    wait_seconds: float


async def take(tx: Tx, consumer_id: UUID, rate: Rate, *, wanted: int) -> Taken:
    """Up to `wanted` tokens out of the bucket, which begins full and fills evenly, by PostgreSQL's clock."""
    now, per_second = func.clock_timestamp(), rate.limit / rate.per_seconds
    present = select(consumers.c.id, literal(float(rate.limit)), now).where(consumers.c.id == consumer_id)
    full = upsert(rate_limits).from_select(["consumer_id", "tokens", "refilled_at"], present)
    await tx.execute(full.on_conflict_do_nothing())
    age = func.greatest(0, func.extract("epoch", now - rate_limits.c.refilled_at))
    filled = (
        select(
            rate_limits.c.consumer_id,
            func.least(rate.limit, rate_limits.c.tokens + cast(age, DOUBLE_PRECISION) * per_second).label(
                "tokens"
            ),
        )
        .where(rate_limits.c.consumer_id == consumer_id)
        .with_for_update()
        .subquery()
    )
    query = (
        update(rate_limits)
        .where(rate_limits.c.consumer_id == filled.c.consumer_id)
        .values(tokens=filled.c.tokens - func.least(wanted, func.floor(filled.c.tokens)), refilled_at=now)
        .returning(filled.c.tokens)
    )
    there: float | None = (await tx.execute(query)).scalar_one_or_none()
    if there is None:  # it was deleted a moment ago, and its key is about to be forgotten
        return Taken(0, rate.per_seconds)
    taken = min(wanted, math.floor(there))
    return Taken(taken, 0.0 if taken else (1 - there) / per_second)
