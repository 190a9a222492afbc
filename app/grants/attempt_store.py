"""The SQL of the history of refresh attempts, and of what it proves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import FromClause, Insert, func, insert, literal, select, tuple_

from app.db import Tx
from app.grants.claim import Claim
from app.grants.grant import Outcome, Trigger
from app.grants.selection import Attempt
from app.grants.store import began, clock
from app.ids import time_of
from app.statements import given
from app.tables import refresh_attempts


def ended(
    held: Claim,
    *,
    replica: str,
    outcome: Outcome,
    milliseconds: int,
    generation: int,
    category: str | None = None,
    provider_code: str | None = None,
    spent_fingerprint: bytes | None = None,
) -> dict[str, Any]:
    """One row of the history."""
    return {
        "id": held.attempt_id,
        "grant_id": held.grant.id,
        "provider": held.grant.key.provider,
        "lineage_id": held.grant.lineage_id,
        "epoch": held.epoch,
        "replica": replica,
        "trigger": held.trigger,
        "outcome": outcome,
        "category": category,
        "provider_code": provider_code,
        "milliseconds": milliseconds,
        "generation": generation,
        "spent_fingerprint": spent_fingerprint,
    }


_TOLD = tuple(column.name for column in refresh_attempts.c if column.name not in ("generation", "at"))


async def record(tx: Tx, row: Mapping[str, Any]) -> None:
    """What `ended` says. It is an error to record an attempt twice."""
    await tx.execute(insert(refresh_attempts).values(**row))


def recorded_with(changed: FromClause) -> Insert:
    """The same for each grant of `changed`, as part of the statement that changes it; `given_of` has the values. The
    generation is the one that the grant has then."""
    told = (given(f"attempt_{name}", refresh_attempts.c[name].type) for name in _TOLD)
    row = select(changed.c.generation, *told)
    return insert(refresh_attempts).from_select(("generation", *_TOLD), row, include_defaults=False)


def given_of(row: Mapping[str, Any]) -> dict[str, Any]:
    return {f"attempt_{name}": value for name, value in row.items()}


async def history(tx: Tx, grant_id: UUID, *, before: UUID | None, limit: int) -> list[Attempt]:
    """Up to `limit` attempts of a grant, the last that ended first, from behind the one called `before`."""
    table = refresh_attempts.c
    query = select(*(table[name] for name in Attempt.__dataclass_fields__)).where(table.grant_id == grant_id)
    if before is not None:
        ended_at = select(table.at).where(table.id == before).scalar_subquery()
        # Of one that is there no more, its id says when it began.
        behind = tuple_(func.coalesce(ended_at, time_of(before)), literal(before, table.id.type))
        query = query.where(tuple_(table.at, table.id) < behind)
    ordered = query.order_by(table.at.desc(), table.id.desc())  # as the index of a grant's attempts has them
    return [Attempt(*row) for row in await tx.execute(ordered.limit(limit))]


async def was_applied(tx: Tx, held: Claim) -> bool:
    """Whether this attempt's commit went through, though its answer was lost: what it brought is stored, or was."""
    query = select(literal(1)).where(
        refresh_attempts.c.id == held.attempt_id, refresh_attempts.c.generation > held.grant.generation
    )
    return (await tx.execute(query)).first() is not None


async def seconds_since_forced(tx: Tx, grant_id: UUID, *, within: timedelta) -> float | None:
    """Seconds since somebody last forced a refresh of the grant; None where that was longer ago than `within`."""
    query = select(func.extract("epoch", clock() - func.max(refresh_attempts.c.at))).where(
        refresh_attempts.c.grant_id == grant_id,
        refresh_attempts.c.trigger == Trigger.FORCED,
        refresh_attempts.c.at > began() - within,  # of a long history the end only
    )
    seconds = (await tx.execute(query)).scalar_one()
    return None if seconds is None else float(seconds)


async def was_spent(tx: Tx, grant_id: UUID, fingerprint: bytes) -> bool:
    """Whether this grant has already exchanged that refresh token for its successor."""
    query = select(literal(1)).where(
        refresh_attempts.c.grant_id == grant_id, refresh_attempts.c.spent_fingerprint == fingerprint
    )
    return (await tx.execute(query.limit(1))).first() is not None
