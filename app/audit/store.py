"""The SQL of the audit trail. An event is written in the transaction it tells of, so neither exists alone."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import insert

from app.audit.event import AuditEvent
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
