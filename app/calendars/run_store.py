"""The SQL of sync runs: what syncs came to."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import DateTime, delete, func, insert, literal, select

from app.calendars.outcome import SyncOutcome, SyncStatus, SyncTrigger
from app.calendars.trouble import ErrorType
from app.db import Tx
from app.tables import calendar_accounts as accounts
from app.tables import sync_runs as runs

_clock = func.clock_timestamp(type_=DateTime(timezone=True))


async def add(
    tx: Tx, grant_id: UUID, outcome: SyncOutcome, *, trigger: SyncTrigger, started_at: datetime
) -> None:
    """Nothing is kept where the grant's account is gone by now."""
    values = {
        "id": outcome.run_id,
        "trigger": trigger,
        "status": outcome.status,
        "error_type": outcome.error_type,
        "message": outcome.message,
        "calendars": list(outcome.calendars),
        "started_at": started_at,
    }
    written = (literal(value, runs.c[name].type) for name, value in values.items())
    account = select(accounts.c.grant_id, *written).where(accounts.c.grant_id == grant_id)
    held = account.with_for_update(of=accounts, read=True, key_share=True)
    await tx.execute(insert(runs).from_select(["grant_id", *values], held))


async def latest(tx: Tx, grant_id: UUID, *, trigger: SyncTrigger) -> SyncOutcome | None:
    """What the last of these came to."""
    of_these = (runs.c.grant_id == grant_id, runs.c.trigger == trigger)
    query = select(runs).where(*of_these).order_by(runs.c.id.desc()).limit(1)
    row = (await tx.execute(query)).one_or_none()
    if row is None:
        return None
    error_type = None if row.error_type is None else ErrorType(row.error_type)
    return SyncOutcome(row.id, SyncStatus(row.status), row.message, error_type, row.calendars, None)


async def sweep(tx: Tx, *, kept_for: timedelta, limit: int) -> int:
    """Deletes some of those that ended longer ago; how many."""
    old = (
        select(runs.c.id, runs.c.grant_id).where(runs.c.ended_at < _clock - kept_for).limit(limit).subquery()
    )
    which = (runs.c.id == old.c.id, runs.c.grant_id == old.c.grant_id)
    return (await tx.execute(delete(runs).where(*which))).rowcount
