"""The SQL of provider incidents: what opens and clears them, and the grants they concern."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import CTE, ColumnElement, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from app.db import Tx
from app.grants.grant import INCIDENT, Grant, Outcome, Status
from app.grants.incident import WINDOW, Incident, Toll, enough_refreshed
from app.grants.store import began, clock, to_grant
from app.tables import grants, provider_incidents, refresh_attempts

_COLUMNS = [provider_incidents.c[name] for name in Incident.__dataclass_fields__]
_OPEN = provider_incidents.c.cleared_at.is_(None)


async def all_open(tx: Tx) -> list[Incident]:
    rows = await tx.execute(select(*_COLUMNS).where(_OPEN).order_by(provider_incidents.c.opened_at))
    return [Incident(*row) for row in rows]


async def find_open(tx: Tx, provider: str) -> Incident | None:
    row = (
        await tx.execute(select(*_COLUMNS).where(_OPEN, provider_incidents.c.provider == provider))
    ).one_or_none()
    return None if row is None else Incident(*row)


async def toll(tx: Tx, provider: str, *, and_grant: UUID | None = None) -> Toll:
    """That of the last WINDOW; `and_grant` counts as refused, whatever is stored of it."""
    refused = (
        select(func.count())
        .select_from(grants)
        .where(
            grants.c.provider == provider,
            grants.c.refused_at > began() - WINDOW,
            grants.c.reconnect_reason.is_distinct_from("lost_rotation"),
            *(() if and_grant is None else (grants.c.id != and_grant,)),
        )
    )
    number = (await tx.execute(refused)).scalar_one() + (and_grant is not None)
    refreshed = (
        select(literal(1))
        .where(
            refresh_attempts.c.at > began() - WINDOW,
            refresh_attempts.c.provider == provider,
            refresh_attempts.c.outcome == Outcome.REFRESHED,
            refresh_attempts.c.provider_code.is_(None),  # the provider's own answer, and no candidate of ours
        )
        .limit(enough_refreshed(number))
        .subquery()
    )
    again = (
        select(literal(1))
        .where(
            grants.c.provider == provider,
            grants.c.refused_at <= began() - WINDOW,
            grants.c.status == Status.ACTIVE,
            grants.c.last_error_at > began() - WINDOW,
            grants.c.last_error["provider_code"].astext == INCIDENT,
        )
        .limit(1)
        .subquery()
    )
    return Toll(
        number,
        (await tx.execute(select(func.count()).select_from(refreshed))).scalar_one(),
        (await tx.execute(select(func.count()).select_from(again))).scalar_one(),
    )


async def add(tx: Tx, *, incident_id: UUID, provider: str, refused: int, replica: str) -> bool:
    """Whether it is new: of several who open it at once, one does."""
    values = {
        "id": incident_id,
        "provider": provider,
        "refused": refused,
        "replica": replica,
        "opened_at": clock(),
    }
    query = upsert(provider_incidents).values(**values).on_conflict_do_nothing()
    return (await tx.execute(query.returning(provider_incidents.c.id))).first() is not None


async def note_recovery(tx: Tx, provider: str) -> None:
    """A grant that was refused has been refreshed."""
    await tx.execute(
        update(provider_incidents)
        .where(_OPEN, provider_incidents.c.provider == provider)
        .values(recovered=provider_incidents.c.recovered + 1)
    )


async def hurry(tx: Tx, incident: Incident, *, within: timedelta, forgiven: bool, limit: int) -> int:
    """Has up to `limit` grants that are still refused tried again `within` that; how many. `forgiven`: a new refusal of
    theirs counts as their first."""
    waiting = _some(
        incident,
        limit,
        grants.c.status == Status.ACTIVE,
        grants.c.last_error["provider_code"].astext == INCIDENT,
    )
    values: dict[str, Any] = {"last_error": None, "next_refresh_at": _after(timedelta(0), within)}
    if forgiven:
        values["refused_at"] = None
    query = update(grants).where(grants.c.id == waiting.c.id).values(**values).returning(grants.c.id)
    return len((await tx.execute(query)).all())


async def clear(tx: Tx, incident: Incident) -> bool:
    """Whether it was open."""
    query = update(provider_incidents).where(_OPEN, provider_incidents.c.id == incident.id)
    cleared = await tx.execute(query.values(cleared_at=clock()).returning(provider_incidents.c.id))
    return cleared.first() is not None


async def revive(
    tx: Tx, incident: Incident, *, error: Mapping[str, Any], least: timedelta, most: timedelta, limit: int
) -> list[Grant]:
    """Up to `limit` of those that were believed dead just before it was opened: active again with `error` as the last
    one, tried between `least` and `most` from now."""
    believed = _some(
        incident,
        limit,
        grants.c.refused_at > incident.opened_at - WINDOW,
        grants.c.status == Status.RECONNECT_REQUIRED,
        grants.c.reconnect_reason == "invalid_grant",
        grants.c.sealed_refresh_token.is_not(None),
    )
    query = (
        update(grants)
        .where(grants.c.id == believed.c.id)
        .values(
            status=Status.ACTIVE,
            reconnect_reason=None,
            probe_at=None,
            last_error=error,
            last_error_at=clock(),
            next_refresh_at=_after(least, most),
            updated_at=clock(),
        )
        .returning(*grants.c)
    )
    return [to_grant(row._mapping) for row in await tx.execute(query)]


def _some(incident: Incident, limit: int, *conditions: ColumnElement[bool]) -> CTE:
    """Up to `limit` grants that the provider refused, passing over those that others hold."""
    return (
        select(grants.c.id)
        .where(grants.c.provider == incident.provider, grants.c.refused_at.is_not(None), *conditions)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("some")
    )


def _after(least: timedelta, most: timedelta) -> ColumnElement[datetime]:
    seconds = least.total_seconds() + func.random() * (most - least).total_seconds()
    return clock() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
