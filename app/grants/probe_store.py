"""The SQL of dead grants that are tried once more."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import exists, select, update

from app.db import Tx
from app.grants.grant import Grant, Status
from app.grants.store import began, clock, to_grant
from app.tables import grants, provider_incidents

_NEXT_IF_UNANSWERED = timedelta(minutes=10)


async def take_due(tx: Tx, *, limit: int) -> list[Grant]:
    """Up to `limit` dead grants whose probe is due, the longest first; none that another replica is taking at this
    moment, and none of a provider that has an incident.

    Each is put off, so that a probe that came to nothing is repeated; an answer to it ends that.
    """
    incident = exists().where(
        provider_incidents.c.provider == grants.c.provider, provider_incidents.c.cleared_at.is_(None)
    )
    due = (
        select(grants.c.id)
        .where(grants.c.probe_at <= began(), grants.c.status == Status.RECONNECT_REQUIRED, ~incident)
        .order_by(grants.c.probe_at)
        .limit(limit)
        .with_for_update(of=grants, skip_locked=True)
        .cte("due")
    )
    rows = await tx.execute(
        update(grants)
        .where(grants.c.id == due.c.id)
        .values(probe_at=clock() + _NEXT_IF_UNANSWERED)
        .returning(*grants.c)
    )
    return [to_grant(row._mapping) for row in rows]
