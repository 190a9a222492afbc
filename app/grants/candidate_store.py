"""The SQL of candidates: answers with a new refresh token that came too late for T2, though their lineage is the present
one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from app.db import Tx
from app.grants.store import began
from app.tables import grant_candidates


@dataclass(frozen=True)
class Candidate:
    """One row of `grant_candidates`; `id` is the attempt that brought it, `sent_at` when its request was sent."""

    id: UUID
    grant_id: UUID
    lineage_id: UUID
    base_fingerprint: bytes | None = field(repr=False)
    sealed_tokens: bytes = field(repr=False)
    sent_at: datetime


_COLUMNS = [grant_candidates.c[name] for name in Candidate.__dataclass_fields__]


async def add(tx: Tx, candidate: Candidate) -> None:
    """May be repeated: what one attempt brought is kept once."""
    values = {name: getattr(candidate, name) for name in Candidate.__dataclass_fields__}
    await tx.execute(upsert(grant_candidates).values(**values).on_conflict_do_nothing())


async def find(tx: Tx, candidate_id: UUID) -> Candidate | None:
    query = select(*_COLUMNS).where(grant_candidates.c.id == candidate_id)
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else Candidate(*row)


async def latest(tx: Tx, grant_id: UUID, lineage_id: UUID) -> Candidate | None:
    """The one that came last of those kept for the lineage."""
    query = (
        select(*_COLUMNS)
        .where(grant_candidates.c.grant_id == grant_id, grant_candidates.c.lineage_id == lineage_id)
        .order_by(grant_candidates.c.created_at.desc())
        .limit(1)
    )
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else Candidate(*row)


async def remove(tx: Tx, candidate_id: UUID) -> None:
    await tx.execute(delete(grant_candidates).where(grant_candidates.c.id == candidate_id))


async def take_all(tx: Tx, grant_id: UUID) -> list[Candidate]:
    """Those of the grant, which are gone from here."""
    rows = await tx.execute(
        delete(grant_candidates).where(grant_candidates.c.grant_id == grant_id).returning(*_COLUMNS)
    )
    return [Candidate(*row) for row in rows]


async def end_lineage(tx: Tx, grant_id: UUID, lineage_id: UUID) -> None:
    """Removes those kept for the lineage."""
    await tx.execute(
        delete(grant_candidates).where(
            grant_candidates.c.grant_id == grant_id, grant_candidates.c.lineage_id == lineage_id
        )
    )


async def move(tx: Tx, grant_id: UUID, lineage_id: UUID) -> None:
    """The grant begins that lineage with the same refresh token, for which they were kept."""
    await tx.execute(
        update(grant_candidates).where(grant_candidates.c.grant_id == grant_id).values(lineage_id=lineage_id)
    )


async def erase_older(tx: Tx, *, than: timedelta, limit: int) -> int:
    """Erases up to `limit` that were kept for longer `than` that; how many."""
    old = (
        select(grant_candidates.c.id)
        .where(grant_candidates.c.created_at < began() - than)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("old")
    )
    rows = await tx.execute(
        delete(grant_candidates).where(grant_candidates.c.id == old.c.id).returning(grant_candidates.c.id)
    )
    return len(rows.all())
