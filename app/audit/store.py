"""The SQL of the audit trail. An event is written in the transaction it tells of, so neither exists alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause, Insert, Text, bindparam, column, func, insert, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert

from app.audit.event import AuditEvent, Filter, NewEvent, RecordedEvent
from app.db import Tx
from app.ids import least_at, uuid7
from app.statements import given
from app.tables import audit_chain, audit_events
from app.telemetry import current_request_id

# `at` is when PostgreSQL wrote the row, an id the time of who asked it to: this far apart they are never.
_APART = timedelta(hours=1)
_COLUMNS = ("id", "actor", "action", "provider", "user_id", "grant_id", "request_id", "details")


def _add_all() -> Insert:
    """Inserts the rows of a JSON array."""
    columns = [column(name, audit_events.c[name].type) for name in _COLUMNS]
    given = func.jsonb_to_recordset(bindparam("events", type_=Text).cast(JSONB))
    rows = given.table_valued(*columns, name="rows").render_derived(with_types=True)
    added = upsert(audit_events).from_select(_COLUMNS, select(*(rows.c[name] for name in _COLUMNS)))
    return added.on_conflict_do_nothing()


_ADD_ALL = _add_all()


async def record(tx: Tx, event: AuditEvent, *, now: datetime) -> None:
    await tx.execute(insert(audit_events).values(_row(noted(event, now=now))))


def recorded_with(source: FromClause) -> Insert:
    """The same for each row of `source`, as part of a statement that changes something; `given_of` has the values."""
    row = select(*(given(f"event_{name}", audit_events.c[name].type) for name in _COLUMNS))
    return insert(audit_events).from_select(_COLUMNS, row.select_from(source), include_defaults=False)


def given_of(event: NewEvent) -> dict[str, Any]:
    return {f"event_{name}": value for name, value in _row(event).items()}


def noted(event: AuditEvent, *, now: datetime) -> NewEvent:
    """The event under an id of its own, and with the request that it comes from."""
    return NewEvent(uuid7(now), current_request_id(), event)


async def record_all(tx: Tx, events: Sequence[NewEvent]) -> None:
    """In one statement, the same for any number. What is there already stays as it is."""
    await tx.execute(_ADD_ALL, {"events": json.dumps([_row(event) for event in events], default=str)})


async def listed(tx: Tx, wanted: Filter, *, before: UUID | None, limit: int) -> list[RecordedEvent]:
    """Up to `limit` events, the latest first, older than the one called `before`."""
    sequence = (
        select(audit_chain.c.sequence).where(audit_chain.c.event_id == audit_events.c.id).scalar_subquery()
    )
    query = select(audit_events, sequence.label("sequence")).where(*_conditions(wanted))
    if before is not None:
        query = query.where(audit_events.c.id < before)
    rows = await tx.execute(query.order_by(audit_events.c.id.desc()).limit(limit))
    return [
        RecordedEvent(
            row.id,
            row.at,
            row.request_id,
            row.sequence,
            AuditEvent(row.action, row.actor, row.provider, row.user_id, row.grant_id, row.details),
        )
        for row in rows
    ]


def _row(new: NewEvent) -> dict[str, Any]:
    event = new.event
    return {
        "id": new.id,
        "actor": event.actor,
        "action": event.action,
        "provider": event.provider,
        "user_id": event.user_id,
        "grant_id": event.grant_id,
        "request_id": new.request_id,
        "details": dict(event.details),
    }


def _conditions(wanted: Filter) -> Iterator[ColumnElement[bool]]:
    for name in ("actor", "action", "provider", "user_id", "grant_id", "request_id"):
        value = getattr(wanted, name)
        if value is not None:
            yield audit_events.c[name] == value
    # The order is that of the ids, so a time has to bound them, too: else all that is later would be passed over.
    if wanted.since is not None:
        yield audit_events.c.at >= wanted.since
        yield audit_events.c.id >= least_at(wanted.since - _APART)
    if wanted.until is not None:
        yield audit_events.c.at < wanted.until
        yield audit_events.c.id < least_at(wanted.until + _APART)
