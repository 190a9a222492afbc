"""The SQL of revocations: tokens of grants that are gone here, kept until the provider has ended them too."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, insert, literal, select, update

from app.db import Tx
from app.grants.store import began, clock
from app.tables import grants, revocations

_TRY_SECONDS = 30  # longer than a try takes: until then nobody else begins one
_BASE_SECONDS, _CAP_SECONDS = 30, 3600


@dataclass(frozen=True)
class Revocation:
    """One row of `revocations`, of which the `attempts`-th try is under way. `user_id` is the grant's."""

    id: UUID
    grant_id: UUID
    provider: str
    user_id: str
    token_type_hint: str
    sealed_token: bytes = field(repr=False)
    attempts: int


_COLUMNS = [
    grants.c.user_id if name == "user_id" else revocations.c[name] for name in Revocation.__dataclass_fields__
]


async def add(tx: Tx, revocation: Revocation) -> None:
    """Whoever adds it makes the first try; others follow if that comes to nothing."""
    await tx.execute(
        insert(revocations).values(
            id=revocation.id,
            grant_id=revocation.grant_id,
            provider=revocation.provider,
            token_type_hint=revocation.token_type_hint,
            sealed_token=revocation.sealed_token,
            attempts=revocation.attempts,
            next_attempt_at=_after_try(literal(revocation.attempts)),
        )
    )


async def take_due(tx: Tx, *, limit: int) -> list[Revocation]:
    """Up to `limit` that are due, the longest first, and none that another replica is taking at this moment.

    Each is put off until after the try that follows, so one that comes to nothing needs no word, nor does one that
    died with its process.
    """
    due = (
        select(revocations.c.id)
        .where(revocations.c.next_attempt_at <= began())
        .order_by(revocations.c.next_attempt_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    rows = await tx.execute(
        update(revocations)
        .where(revocations.c.id == due.c.id, grants.c.id == revocations.c.grant_id)
        .values(attempts=revocations.c.attempts + 1, next_attempt_at=_after_try(revocations.c.attempts + 1))
        .returning(*_COLUMNS)
    )
    return [Revocation(*row) for row in rows]


async def remove(tx: Tx, revocation_id: UUID) -> bool:
    """Whether it was there: of several who end it, one."""
    removed = delete(revocations).where(revocations.c.id == revocation_id).returning(revocations.c.id)
    return (await tx.execute(removed)).first() is not None


async def erase_older(tx: Tx, *, than: timedelta, limit: int) -> list[Revocation]:
    """Erases up to `limit` that were kept longer `than` that, whatever became of them. Each is told once."""
    old = (
        select(revocations.c.id)
        .where(revocations.c.created_at < began() - than)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("old")
    )
    rows = await tx.execute(
        delete(revocations)
        .where(revocations.c.id == old.c.id, grants.c.id == revocations.c.grant_id)
        .returning(*_COLUMNS)
    )
    return [Revocation(*row) for row in rows]


def _after_try(attempts: ColumnElement[int]) -> ColumnElement[datetime]:
    """When the next one begins, if this one, the `attempts`-th, comes to nothing: full jitter, at most an hour."""
    ceiling = func.least(
        _CAP_SECONDS - _TRY_SECONDS, _BASE_SECONDS * func.power(2.0, func.least(attempts - 1, 20))
    )
    seconds = _TRY_SECONDS + func.random() * ceiling
    return clock() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
