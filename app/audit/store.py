"""The SQL of the audit trail. An event is written in the transaction it tells of, so neither exists alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, insert, select

from app.audit.event import AuditEvent, Filter, RecordedEvent
from app.db import Tx
from app.ids import uuid7
from app.tables import audit_events
from app.telemetry import current_request_id


async def record(tx: Tx, event: AuditEvent, *, now: datetime) -> None:
    await tx.execute(
        insert(audit_events).values(
            id=uuid7(now),
            actor=event.actor,
            action=event.action,
            provider=event.provider,
            user_id=event.user_id,
            grant_id=event.grant_id,
            request_id=current_request_id(),
            details=dict(event.details),
        )
    )


async def listed(tx: Tx, wanted: Filter, *, before: UUID | None, limit: int) -> list[RecordedEvent]:
    """Up to `limit` events, the latest first, older than the one called `before`."""
    query = select(audit_events).where(*_conditions(wanted))
    if before is not None:
        query = query.where(audit_events.c.id < before)
    rows = await tx.execute(query.order_by(audit_events.c.id.desc()).limit(limit))
    return [
        RecordedEvent(
            row.id,
            row.at,
            row.request_id,
            AuditEvent(row.action, row.actor, row.provider, row.user_id, row.grant_id, row.details),
        )
        for row in rows
    ]


def _conditions(wanted: Filter) -> Iterator[ColumnElement[bool]]:
    for column in ("actor", "action", "provider", "user_id", "grant_id"):
        value = getattr(wanted, column)
        if value is not None:
            yield audit_events.c[column] == value
    if wanted.since is not None:
        yield audit_events.c.at >= wanted.since
    if wanted.until is not None:
        yield audit_events.c.at < wanted.until
