"""The SQL of how far calendars have been synced: leases, cursors, generations, and when each is next.

Whoever writes what belongs to a calendar holds its lease, and looks in the same transaction that it still does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    DateTime,
    Row,
    Select,
    Uuid,
    any_,
    case,
    func,
    literal,
    or_,
    select,
    update,
)

from app.calendars.claimed import SOON, Claimed
from app.calendars.upstream import Window
from app.calendars.writes import PRIMARY
from app.db import Tx
from app.grants.grant import GrantKey
from app.tables import calendar_sync_states as states
from app.tables import calendars, grants

_NO_LEASE = {"lease_owner": None, "lease_until": None}
_clock = func.clock_timestamp(type_=DateTime(timezone=True))


class LeaseLost(Exception):
    """Somebody else syncs the calendar by now."""


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A calendar that syncs have begun to store. `window`: of what they store, where that is not everything."""

    calendar_id: UUID
    external_id: str
    zone: str | None
    generation: int
    window: Window | None


async def mirrored(tx: Tx, grant_id: UUID, name: str) -> Mirrored | None:
    """The grant's calendar of this id, or its primary one for `primary`; None where nothing of it was ever synced. Until the
    transaction ends no baseline of it begins, and no page is stored."""
    called_so = calendars.c.external_id == name
    query = (
        select(
            *(calendars.c[each] for each in ("id", "external_id", "zone")),
            *(states.c[each] for each in ("generation", "window_since", "window_until")),
        )
        .join(states, states.c.id == calendars.c.id)
        .where(calendars.c.grant_id == grant_id, calendars.c.deleted_at.is_(None), states.c.generation > 0)
        .where(or_(called_so, calendars.c.is_primary) if name == PRIMARY else called_so)
        .order_by(called_so.desc())
        .limit(1)
        .with_for_update(of=states)
    )
    row = (await tx.execute(query)).one_or_none()
    if row is None:
        return None
    window = None if row.window_since is None else Window(row.window_since, row.window_until)
    return Mirrored(row.id, row.external_id, row.zone, row.generation, window)


def _is_free() -> ColumnElement[bool]:
    return or_(states.c.lease_until.is_(None), states.c.lease_until < func.statement_timestamp())


async def claim(tx: Tx, calendar_ids: Sequence[UUID], *, owner: UUID, ttl: timedelta) -> list[Claimed]:
    """Of these calendars those that nobody syncs at the moment."""
    free = (
        select(states.c.id)
        .where(states.c.id.in_(calendar_ids), _is_free())
        .order_by(states.c.id)
        .with_for_update(skip_locked=True)
    )
    return await _claimed(tx, free, owner=owner, ttl=ttl)


async def claim_due(tx: Tx, *, owner: UUID, ttl: timedelta, limit: int) -> list[Claimed]:
    """Calendars whose turn it is, the longest waiting first, of grants that are alive."""
    due = (
        select(states.c.id)
        .join(grants, grants.c.id == states.c.grant_id)
        .where(
            states.c.scheduled,
            states.c.next_attempt_at <= func.statement_timestamp(),
            _is_free(),
            grants.c.status == "active",
        )
        .order_by(states.c.next_attempt_at)
        .limit(limit)
        .with_for_update(of=states, skip_locked=True)
    )
    return await _claimed(tx, due, owner=owner, ttl=ttl)


async def _claimed(tx: Tx, wanted: Select[UUID], *, owner: UUID, ttl: timedelta) -> list[Claimed]:
    # As an array they are looked for once, and by the key, however many PostgreSQL takes them for.
    ids = func.array(wanted.scalar_subquery(), type_=ARRAY(Uuid))
    query = (
        update(states)
        .where(states.c.id == any_(ids), calendars.c.id == states.c.id, grants.c.id == states.c.grant_id)
        .values(lease_owner=owner, lease_until=_clock + ttl, notified_at=None)
        .returning(
            *states.c,
            calendars.c.external_id,
            calendars.c.name,
            *(grants.c[name] for name in ("provider", "user_id", "account")),
        )
    )
    return [_of(row, owner) for row in await tx.execute(query)]


def _of(row: Row[Any], owner: UUID) -> Claimed:
    windowed = row.window_since is not None
    return Claimed(
        calendar_id=row.id,
        owner=owner,
        grant_id=row.grant_id,
        key=GrantKey(row.provider, row.user_id, row.account),
        external_id=row.external_id,
        name=row.name,
        generation=row.generation,
        params_hash=row.params_hash,
        window=Window(row.window_since, row.window_until) if windowed else None,
        full_due_at=row.full_due_at,
        failures=row.failures,
        sealed_cursor=row.sealed_cursor,
    )


async def hold(tx: Tx, claimed: Claimed, *, ttl: timedelta) -> None:
    """Keeps the lease for `ttl` from now, and the row locked. Raises LeaseLost."""
    await _write(tx, claimed, lease_until=_clock + ttl)


async def begin_baseline(tx: Tx, claimed: Claimed, *, ttl: timedelta) -> int:
    """Forgets the cursor; the generation of the baseline that begins. Raises LeaseLost."""
    row = await _write(
        tx,
        claimed,
        generation=states.c.generation + 1,
        sealed_cursor=None,
        lease_until=_clock + ttl,
    )
    return int(row.generation)


async def finish(
    tx: Tx,
    claimed: Claimed,
    *,
    sealed_cursor: bytes,
    next_attempt_at: datetime,
    baseline: Mapping[str, Any] | None = None,
) -> None:
    """The calendar is as the provider has it; ends the lease. `baseline`: the columns that a new one changes. Raises
    LeaseLost."""
    await _write(
        tx,
        claimed,
        sealed_cursor=sealed_cursor,
        last_ok_at=_clock,
        last_error=None,
        failures=0,
        next_attempt_at=_unless_notified(next_attempt_at),
        **_NO_LEASE,
        **(baseline or {}),
    )


def _unless_notified(next_attempt_at: datetime) -> ColumnElement[datetime]:
    """What changed while it was being synced may not have been listed any more: it is looked for soon."""
    planned = literal(next_attempt_at, DateTime(timezone=True))
    return case((states.c.notified_at.is_(None), planned), else_=func.least(planned, _clock + SOON))


async def give_up(tx: Tx, claimed: Claimed, *, error: Mapping[str, Any], next_attempt_at: datetime) -> None:
    """It was not synced this time; ends the lease. Raises LeaseLost."""
    await _write(
        tx,
        claimed,
        last_error=dict(error),
        failures=states.c.failures + 1,
        next_attempt_at=next_attempt_at,
        **_NO_LEASE,
    )


async def release(tx: Tx, claimed: Claimed) -> None:
    """Ends the lease, if it is still held, and changes nothing else."""
    held = (states.c.id == claimed.calendar_id, states.c.lease_owner == claimed.owner)
    await tx.execute(update(states).where(*held).values(_NO_LEASE))


async def _write(tx: Tx, claimed: Claimed, **values: Any) -> Row[Any]:
    held = (states.c.id == claimed.calendar_id, states.c.lease_owner == claimed.owner)
    query = update(states).where(*held).values(values).returning(states.c.generation)
    row: Row[Any] | None = (await tx.execute(query)).one_or_none()
    if row is None:
        raise LeaseLost
    return row
