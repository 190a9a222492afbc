"""The SQL of events as syncs write them: many rows in one statement."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import (
    CTE,
    ColumnElement,
    Date,
    DateTime,
    Text,
    and_,
    any_,
    bindparam,
    cast,
    column,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import insert as upsert

from app.calendars.event import CANCELLED, Boundary, Event, Kind
from app.calendars.outcome import Counts
from app.calendars.recurrence import ends_by
from app.db import Tx
from app.tables import calendar_events as events

_TIME = DateTime(timezone=True)
_TYPES: Mapping[str, Any] = {
    "external_id": Text, "kind": Text, "status": Text, "ical_uid": Text, "master_id": Text, "original_start": Text,
    "start_at": _TIME, "end_at": _TIME, "start_date": Date, "end_date": Date, "zone": Text, "recurrence": ARRAY(Text),
    "etag": Text, "provider_updated_at": _TIME, "raw": JSONB, "since": _TIME, "until": _TIME,
}  # fmt: skip
_SAME = ("etag", "status", "start_at", "end_at", "start_date", "end_date")


async def put(tx: Tx, calendar_id: UUID, found: Sequence[Event], *, generation: int) -> Counts:
    """Stores them as they are now, unless what is stored was changed later. How many were new, and how many another."""
    row = (
        await tx.execute(_PUT, {"given": _given(found), "calendar": calendar_id, "baseline": generation})
    ).one()
    if row.written < len(found):  # what is stored is later: but it was seen
        ids = [event.external_id for event in found]
        seen = _is_any(events.c.external_id, ids), events.c.generation < generation
        await tx.execute(
            update(events).where(events.c.calendar_id == calendar_id, *seen).values(generation=generation)
        )
    return Counts(added=row.added, updated=row.updated)


async def remove(tx: Tx, calendar_id: UUID, ids: Collection[str]) -> Counts:
    """Deletes these. How many."""
    return await _deleted(tx, events.c.calendar_id == calendar_id, _is_any(events.c.external_id, ids))


async def remove_instances(tx: Tx, calendar_id: UUID, master_ids: Collection[str]) -> Counts:
    """Deletes what there is of these series besides themselves. How many."""
    return await _deleted(tx, events.c.calendar_id == calendar_id, _is_any(events.c.master_id, master_ids))


async def are_of_series(tx: Tx, calendar_id: UUID, ids: Collection[str]) -> bool:
    """Whether any of these is a series, as far as is known here."""
    series = or_(
        and_(_is_any(events.c.external_id, ids), events.c.kind == Kind.SERIES),
        _is_any(events.c.master_id, ids),
    )
    found = select(literal(1)).where(events.c.calendar_id == calendar_id, series).limit(1)
    return (await tx.execute(found)).scalar() is not None


async def bury(tx: Tx, calendar_id: UUID, external_id: str, *, at: datetime) -> bool:
    """Marks an event as cancelled at `at`, and deletes what there is of it if it is a series; whether it is stored.

    Its row stays until a sync is told that the event is gone: a page that was fetched before would bring it back, and only who
    knows that it was a series looks for instances of which nothing is told.
    """
    where = (events.c.calendar_id == calendar_id, events.c.external_id == external_id)
    later = func.greatest(events.c.provider_updated_at, at)
    cancelled = update(events).where(*where).values(status=CANCELLED, provider_updated_at=later)
    found = (await tx.execute(cancelled)).rowcount == 1
    await remove_instances(tx, calendar_id, [external_id])
    return found


async def drop_unseen(tx: Tx, calendar_id: UUID, *, generation: int) -> Counts:
    """Deletes what a baseline did not list."""
    return await _deleted(tx, events.c.calendar_id == calendar_id, events.c.generation < generation)


async def drop_orphans(tx: Tx, calendar_id: UUID) -> None:
    """Deletes cancelled instances of series that are not there."""
    master = events.alias("master")
    lives = exists().where(
        master.c.calendar_id == events.c.calendar_id, master.c.external_id == events.c.master_id
    )
    await tx.execute(
        delete(events).where(
            events.c.calendar_id == calendar_id,
            events.c.master_id.is_not(None),
            events.c.status == CANCELLED,
            ~lives,
        )
    )


def _is_any(of: ColumnElement[Any], ids: Collection[str]) -> ColumnElement[bool]:
    """One parameter, however many there are."""
    return of == any_(cast(list(ids), ARRAY(Text)))


async def _deleted(tx: Tx, *which: ColumnElement[bool]) -> Counts:
    gone = delete(events).where(*which).returning(events.c.status)
    statuses = list(await tx.scalars(gone))
    return Counts(deleted=sum(status != CANCELLED for status in statuses))


def _put_statement() -> Any:
    """One statement for any number of events, so that it is compiled and prepared once."""
    listed = (
        func.jsonb_to_recordset(cast(bindparam("given", type_=Text), JSONB))
        .table_valued(*(column(name, kind) for name, kind in _TYPES.items()))
        .render_derived(name="listed", with_types=True)
    )
    given = select(*listed.c).cte("given")  # read once, though it is asked twice
    calendar = bindparam("calendar", type_=events.c.calendar_id.type)
    before: CTE = (
        select(*(events.c[name] for name in ("external_id", *_SAME)))
        .where(events.c.calendar_id == calendar, events.c.external_id.in_(select(given.c.external_id)))
        .cte("before")
    )
    generation = bindparam("baseline", type_=events.c.generation.type)
    rows = select(calendar, generation, *given.c)
    insert = upsert(events).from_select(["calendar_id", "generation", *_TYPES], rows)
    new = insert.excluded
    stored, told = events.c.provider_updated_at, new.provider_updated_at
    written: CTE = (
        insert.on_conflict_do_update(
            index_elements=["calendar_id", "external_id"],
            set_={name: new[name] for name in ("generation", *_TYPES)},
            where=or_(stored.is_(None), told.is_(None), told >= stored),
        )
        .returning(*(events.c[name] for name in ("external_id", *_SAME)))
        .cte("written")
    )
    is_other = or_(*(before.c[name].is_distinct_from(written.c[name]) for name in _SAME))
    was_there = before.c.external_id.is_not(None)
    return select(
        func.count().label("written"),
        func.count().filter(~was_there, written.c.status != CANCELLED).label("added"),
        func.count().filter(was_there, is_other).label("updated"),
    ).select_from(written.outerjoin(before, before.c.external_id == written.c.external_id))


_PUT = _put_statement()


def _given(found: Sequence[Event]) -> str:
    """All of them as one parameter: an array for each column takes several times as long to encode."""
    rows = [dict(zip(_TYPES, _values(event), strict=True)) for event in found]
    try:
        return to_json(rows).decode()
    except ValueError:  # nested too deep for that
        return json.dumps(rows, default=str)


_NOWHERE = Boundary()
_LONG_AGO = datetime(1900, 1, 1, tzinfo=UTC)


def _values(event: Event) -> tuple[Any, ...]:
    """In the order of `_TYPES`."""
    start, end = event.start or _NOWHERE, event.end or _NOWHERE
    return (
        event.external_id, event.kind, event.status, event.ical_uid, event.master_id, event.original_start,
        start.at, end.at, start.date, end.date, start.zone, event.recurrence or None,
        event.etag, event.updated_at, event.raw, *_bounds(event),
    )  # fmt: skip


def _bounds(event: Event) -> tuple[datetime | None, datetime | None]:
    """From when until when there may be something of it."""
    if event.start is None or event.end is None:
        return None, None
    if not event.recurrence:
        return event.start.earliest, event.end.latest
    has_dates = any(line.upper().startswith("RDATE") for line in event.recurrence)  # also before its start
    return _LONG_AGO if has_dates else event.start.earliest, ends_by(event)
