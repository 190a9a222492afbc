"""The SQL of reading what syncs have stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, and_, func, literal, or_, select, tuple_, union_all

from app.calendars.event import CANCELLED, Boundary, Event, Kind
from app.calendars.stored import Run, StoredCalendar
from app.db import Tx
from app.tables import calendar_events as events
from app.tables import calendar_sync_states as states
from app.tables import calendars
from app.tables import sync_runs as runs

_CALENDAR = [
    (states if name in {"last_ok_at", "last_full_at", "next_attempt_at", "failures", "last_error"} else calendars).c[name]
    for name in StoredCalendar.__slots__
]  # fmt: skip
_RUN = [runs.c[name] for name in Run.__slots__]
_EVENT = [column for column in events.c if column.name not in {"generation", "since", "until"}]


async def calendars_of(tx: Tx, grant_ids: Sequence[UUID]) -> list[StoredCalendar]:
    """Those that are still in the grants' lists: of each grant the primary one first, then by name."""
    query = (
        select(*_CALENDAR)
        .join_from(calendars, states, states.c.id == calendars.c.id)
        .where(calendars.c.grant_id.in_(grant_ids), calendars.c.deleted_at.is_(None))
        .order_by(calendars.c.grant_id, calendars.c.is_primary.desc(), calendars.c.name, calendars.c.id)
    )
    return [StoredCalendar(*row) for row in await tx.execute(query)]


async def zones(tx: Tx, calendar_ids: Sequence[UUID]) -> dict[UUID, str | None]:
    """Of the calendars that there are."""
    query = select(calendars.c.id, calendars.c.zone).where(calendars.c.id.in_(calendar_ids))
    return {row.id: row.zone for row in await tx.execute(query)}


async def events_between(
    tx: Tx, calendar_ids: Sequence[UUID], since: datetime, until: datetime, *, limit: int
) -> dict[UUID, list[Event]]:
    """At least the events with a part in [since, until), with what is needed to tell what is seen of them: all exceptions of
    series, cancelled ones too, and the masters of instances. `limit`: of the events with a part there, and of the others; as
    many are read at most. One statement, so that no sync is seen by half."""
    found: dict[UUID, list[Event]] = {}
    for row in await tx.execute(_between(calendar_ids, since, until, limit)):
        found.setdefault(row.calendar_id, []).append(_event(row))
    return found


def _between(calendar_ids: Sequence[UUID], since: datetime, until: datetime, limit: int) -> Any:
    ours = events.c.calendar_id.in_(calendar_ids)
    is_near = and_(
        events.c.since < until, or_(events.c.until >= since, events.c.until.is_(None)), _is_living()
    )
    # Written into the statement: of a parameter PostgreSQL thinks that it is few, for which it would read every calendar's.
    most = literal(limit, literal_execute=True)
    near = select(*_EVENT).where(ours, is_near).limit(most).cte("near")
    with_exceptions = select(near.c.calendar_id, func.coalesce(near.c.master_id, near.c.external_id)).where(
        near.c.kind.in_([Kind.SERIES, Kind.EXCEPTION])
    )
    masters = select(near.c.calendar_id, near.c.master_id).where(near.c.kind == Kind.INSTANCE)
    exceptions = _others(events.c.master_id, with_exceptions, events.c.kind == Kind.EXCEPTION)
    series = _others(events.c.external_id, masters, events.c.kind == Kind.SERIES)
    return union_all(
        select(near),
        exceptions.where(is_near.is_not(True)).limit(most),
        series.where(is_near.is_not(True)).limit(most),
    )


def _is_living() -> ColumnElement[bool]:
    return or_(events.c.status != CANCELLED, events.c.kind == Kind.EXCEPTION)


def _others(key: ColumnElement[Any], wanted: Select[Any], which: ColumnElement[bool]) -> Select[Any]:
    return select(*_EVENT).where(tuple_(events.c.calendar_id, key).in_(wanted), which)


def _event(row: Row[Any]) -> Event:
    start = Boundary(row.start_at, row.start_date, row.zone)
    end = Boundary(row.end_at, row.end_date, row.zone)
    has_start = row.start_at is not None or row.start_date is not None
    has_end = row.end_at is not None or row.end_date is not None
    return Event(
        external_id=row.external_id,
        kind=Kind(row.kind),
        status=row.status,
        start=start if has_start else None,
        end=(end if has_end else start) if has_start else None,
        ical_uid=row.ical_uid,
        master_id=row.master_id,
        original_start=row.original_start,
        recurrence=tuple(row.recurrence or ()),
        etag=row.etag,
        updated_at=row.provider_updated_at,
        raw=row.raw,
    )


async def runs_of(tx: Tx, grant_ids: Sequence[UUID], *, before: UUID | None, limit: int) -> list[Run]:
    """The latest first."""
    query = select(*_RUN).where(runs.c.grant_id.in_(grant_ids)).order_by(runs.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(runs.c.id < before)
    return [Run(*row) for row in await tx.execute(query)]
