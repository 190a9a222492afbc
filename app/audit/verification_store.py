"""The SQL of checking the trail: all of it in one snapshot, and in pieces, so that memory stays flat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Numeric, case, cast, func, select, text, true

from app.audit.chain import Link, Seal, StoredEvent
from app.audit.chain_store import event_of
from app.db import Tx
from app.tables import audit_chain, audit_events, audit_unchained, grants, refresh_attempts

_LATEST = 20  # of a grant's history: generations only grow


@dataclass(frozen=True)
class Unlinked:
    """An event that no row of the chain names. `waits`: the sealer will find it."""

    id: UUID
    at: datetime
    action: str
    waits: bool


@dataclass(frozen=True)
class OlderGrant:
    """A grant whose history knows of a later generation."""

    id: UUID
    generation: int
    known: int


async def freeze(tx: Tx) -> None:
    """Everything is read as it is now. Comes first in the transaction."""
    await tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


async def links(tx: Tx, *, after: int, limit: int) -> list[Link]:
    """The next rows of the chain, each with its event."""
    piece = (
        select(audit_chain)
        .where(audit_chain.c.sequence > after)
        .order_by(audit_chain.c.sequence)
        .limit(limit)
        .subquery()
    )
    event = event_of(piece.c.event_id)
    query = (
        select(
            piece.c.sequence, piece.c.key_id, piece.c.sealed_at, piece.c.version, piece.c.event_id, piece.c.hash, event
        )
        .select_from(piece.outerjoin(event, true()))
        .order_by(piece.c.sequence)
    )  # fmt: skip
    return [
        Link(Seal(*row[:4]), row[4], row[5], None if row[6] is None else StoredEvent(*row[6:]))
        for row in await tx.execute(query)
    ]


async def unlinked(tx: Tx, *, after: UUID, limit: int) -> tuple[UUID | None, list[Unlinked]]:
    """Looks at the next `limit` events: the last of them, None where there is none; and those that are not chained."""
    piece = (
        select(audit_events.c.id, audit_events.c.at, audit_events.c.action)
        .where(audit_events.c.id > after)
        .order_by(audit_events.c.id)
        .limit(limit)
        .subquery()
    )
    last = (
        await tx.execute(select(piece.c.id).order_by(piece.c.id.desc()).limit(1))
    ).scalar_one_or_none()  # PostgreSQL has no max() of a uuid before 18
    link = select(true()).where(audit_chain.c.event_id == piece.c.id).limit(1).scalar_subquery()
    waits = select(true()).where(audit_unchained.c.event_id == piece.c.id).limit(1).scalar_subquery()
    query = select(piece, func.coalesce(waits, False).label("waits")).where(link.is_(None))
    rows = await tx.execute(query.order_by(piece.c.id))
    return last, [Unlinked(row.id, row.at, row.action, row.waits) for row in rows]


async def lost_in_wait(tx: Tx, *, limit: int) -> list[UUID]:
    """What waits to be chained and is not there."""
    event = select(true()).where(audit_events.c.id == audit_unchained.c.event_id).limit(1).scalar_subquery()
    lost = select(audit_unchained.c.event_id).where(event.is_(None))
    query = lost.order_by(audit_unchained.c.event_id).limit(limit)
    return list(await tx.scalars(query))


async def prunings(tx: Tx, *, action: str, sequence: int) -> list[Mapping[str, Any]]:
    """What the events of that action say that name this sequence."""
    details = audit_events.c.details
    query = select(details).where(
        audit_events.c.action == action, details["sequence"].astext == str(sequence)
    )
    return list(await tx.scalars(query))


async def older_grants(tx: Tx, *, after: UUID, limit: int) -> tuple[UUID | None, list[OlderGrant]]:
    """Looks at the next `limit` grants: the last of them, None where there is none; and those that went back."""
    piece = (
        select(grants.c.id, grants.c.generation)
        .where(grants.c.id > after)
        .order_by(grants.c.id)
        .limit(limit)
        .subquery()
    )
    attempts = (
        select(refresh_attempts.c.generation)
        .where(refresh_attempts.c.grant_id == piece.c.id)
        .order_by(refresh_attempts.c.at.desc())
    )
    told = audit_events.c.details["generation"]
    is_number = func.jsonb_typeof(told) == "number"
    events = (
        select(case((is_number, cast(cast(told.astext, Numeric), BigInteger))).label("generation"))
        .where(audit_events.c.grant_id == piece.c.id)
        .order_by(audit_events.c.id.desc())
    )
    known: dict[UUID, tuple[int, int]] = {}
    for history in (attempts, events):
        latest = history.limit(_LATEST).lateral()
        query = select(piece, func.max(latest.c.generation)).select_from(piece.outerjoin(latest, true()))
        for grant_id, generation, most in await tx.execute(query.group_by(*piece.c)):
            known[grant_id] = generation, max(most or 0, known.get(grant_id, (0, 0))[1])
    older = [
        OlderGrant(id, generation, most) for id, (generation, most) in known.items() if most > generation
    ]
    return max(known, default=None), older
