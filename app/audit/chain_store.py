"""The SQL of the chain. `audit_chain` is only ever added to; `prune_audit` alone takes from its beginning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Insert,
    Text,
    Uuid,
    any_,
    bindparam,
    cast,
    column,
    delete,
    func,
    insert,
    literal,
    select,
    true,
    update,
)
from sqlalchemy.sql.selectable import LateralFromClause

from app.audit.chain import Head, Link, StoredEvent
from app.db import Tx
from app.tables import audit_beginning, audit_chain, audit_events, audit_head, audit_unchained

LOCK = 5_518_230_467_921_340_077  # any constant: every replica asks for the same one, and revision 0009 too


@dataclass(frozen=True)
class Look:
    """What a sealer sees. `is_locked`: it alone may chain, until the transaction ends. `oldest` is not chained yet."""

    is_locked: bool
    head: Head
    oldest: UUID | None


@dataclass(frozen=True)
class Pruned:
    """How many events, and where the chain begins now."""

    events: int
    beginning: Head


async def look(tx: Tx) -> Look:
    """Asks for the sealer's lock without waiting for it. Raises LookupError where the head is gone."""
    oldest = select(audit_unchained.c.event_id).order_by(audit_unchained.c.event_id).limit(1)
    row = (
        await tx.execute(
            select(
                func.pg_try_advisory_xact_lock(LOCK).label("is_locked"),
                audit_head.c.sequence,
                audit_head.c.hash,
                oldest.scalar_subquery().label("oldest"),
            )
        )
    ).one_or_none()
    if row is None:
        raise LookupError("audit_head has no row")
    return Look(row.is_locked, Head(row.sequence, row.hash), row.oldest)


async def head(tx: Tx) -> Head | None:
    return await _end(tx, audit_head)


async def beginning(tx: Tx) -> Head | None:
    """The last place that was pruned; `EMPTY` where nothing was."""
    return await _end(tx, audit_beginning)


async def hash_at(tx: Tx, sequence: int) -> bytes | None:
    found: bytes | None = (
        await tx.execute(select(audit_chain.c.hash).where(audit_chain.c.sequence == sequence))
    ).scalar_one_or_none()
    return found


async def unchained(tx: Tx, *, after: UUID, limit: int) -> list[StoredEvent]:
    """Events that are not chained yet, in the order of their ids. Each is looked up by its id, however many there are."""
    waiting = (
        select(audit_unchained.c.event_id)
        .where(audit_unchained.c.event_id > after)
        .order_by(audit_unchained.c.event_id)
        .limit(limit)
        .subquery()
    )
    event = event_of(waiting.c.event_id)
    rows = await tx.execute(select(event).select_from(waiting.join(event, true())).order_by(event.c.id))
    return [StoredEvent(*row) for row in rows]


def _add_all() -> Insert:
    """Inserts the rows of as many arrays as there are columns."""
    columns = [column(each.name, each.type) for each in audit_chain.c]
    given = [bindparam(f"all_{each.name}", type_=ARRAY(each.type)) for each in audit_chain.c]
    rows = func.unnest(*given).table_valued(*columns, name="rows").render_derived()
    return insert(audit_chain).from_select([each.name for each in columns], select(rows))


_ADD_ALL = _add_all()


def _columns_of(links: Sequence[Link]) -> dict[str, Any]:
    return {
        "all_sequence": [link.seal.sequence for link in links],
        "all_event_id": [link.event_id for link in links],
        "all_hash": [link.hash for link in links],
        "all_key_id": [link.seal.key_id for link in links],
        "all_version": [link.seal.version for link in links],
        "all_sealed_at": [link.seal.sealed_at for link in links],
    }


async def add(tx: Tx, links: Sequence[Link]) -> None:
    """Chains them: the last one is the head then, and they are not waiting any more."""
    await tx.execute(_ADD_ALL, _columns_of(links))
    ids = [link.event_id for link in links]
    await tx.execute(
        delete(audit_unchained).where(audit_unchained.c.event_id == any_(literal(ids, ARRAY(Uuid))))
    )
    await tx.execute(update(audit_head).values(sequence=links[-1].seal.sequence, hash=links[-1].hash))


async def prune(tx: Tx, *, before: datetime, limit: int) -> Pruned:
    """Takes up to `limit` events that are older than `before` from the chain's beginning."""
    pruned = func.prune_audit(before, limit).table_valued("pruned", "sequence", "hash")
    row = (await tx.execute(select(pruned))).one()
    return Pruned(row.pruned, Head(row.sequence, row.hash))


def event_of(event_id: ColumnElement[UUID]) -> LateralFromClause:
    """Every column of the one event, by its id: the limit keeps PostgreSQL from joining in another way."""
    return (
        select(
            audit_events.c.id,
            audit_events.c.actor,
            audit_events.c.action,
            audit_events.c.provider,
            audit_events.c.user_id,
            audit_events.c.grant_id,
            audit_events.c.request_id,
            cast(audit_events.c.details, Text).label("details"),
            audit_events.c.at,
        )
        .where(audit_events.c.id == event_id)
        .limit(1)
        .lateral()
    )


async def _end(tx: Tx, table: Any) -> Head | None:
    row = (await tx.execute(select(table.c.sequence, table.c.hash))).one_or_none()
    return None if row is None else Head(row.sequence, row.hash)
