"""The SQL of calendar accounts and their lists of calendars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    DateTime,
    Text,
    Uuid,
    all_,
    any_,
    cast,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from app.calendars.upstream import RemoteCalendar
from app.db import Tx
from app.grants.grant import GrantKey
from app.tables import calendar_accounts as accounts
from app.tables import calendar_events as events
from app.tables import calendar_sync_states as states
from app.tables import calendars, grants

_clock = func.clock_timestamp(type_=DateTime(timezone=True))


@dataclass(frozen=True, slots=True)
class Known:
    """A calendar as it is stored, and how its syncs went."""

    id: UUID
    external_id: str
    name: str
    is_primary: bool
    last_ok_at: datetime | None
    next_attempt_at: datetime | None
    last_error: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Account:
    """A grant's account, and its calendars that are still in the list."""

    grant_id: UUID
    scheduled: bool
    lineage_id: UUID | None
    next_list_at: datetime | None
    failures: int
    last_error: dict[str, Any] | None
    calendars: Sequence[Known]


async def account_of(tx: Tx, grant_id: UUID) -> Account | None:
    """None where nothing of the grant was ever synced."""
    query = (
        select(
            accounts.c.scheduled,
            accounts.c.lineage_id,
            accounts.c.next_list_at,
            accounts.c.failures,
            accounts.c.last_error,
            *(calendars.c[name] for name in ("id", "external_id", "name", "is_primary")),
            *(states.c[name] for name in ("last_ok_at", "next_attempt_at", "last_error")),
        )
        .select_from(accounts)
        .outerjoin(
            calendars, (calendars.c.grant_id == accounts.c.grant_id) & calendars.c.deleted_at.is_(None)
        )
        .outerjoin(states, states.c.id == calendars.c.id)
        .where(accounts.c.grant_id == grant_id)
        .order_by(calendars.c.is_primary.desc(), calendars.c.id)
    )
    rows = (await tx.execute(query)).all()
    if not rows:
        return None
    found = [Known(*row[5:]) for row in rows if row[5] is not None]
    first = rows[0]
    return Account(grant_id, first.scheduled, first.lineage_id, first.next_list_at, first[3], first[4], found)


async def open_account(tx: Tx, grant_id: UUID) -> None:
    """May be repeated."""
    await tx.execute(upsert(accounts).values(grant_id=grant_id).on_conflict_do_nothing())


async def schedule(tx: Tx, grant_id: UUID) -> None:
    """From now on its calendars are synced also when nobody asks. May be repeated."""
    query = upsert(accounts).values(grant_id=grant_id, scheduled=True, next_list_at=_clock)
    changes = {"scheduled": True, "next_list_at": func.coalesce(accounts.c.next_list_at, _clock)}
    await tx.execute(query.on_conflict_do_update(index_elements=["grant_id"], set_=changes))
    scheduled = {"scheduled": True, "next_attempt_at": func.coalesce(states.c.next_attempt_at, _clock)}
    await tx.execute(update(states).where(states.c.grant_id == grant_id).values(scheduled))


async def put_listed(
    tx: Tx,
    grant_id: UUID,
    found: Sequence[tuple[UUID, RemoteCalendar]],
    *,
    lineage_id: UUID,
    asked_at: datetime,
    next_list_at: datetime,
) -> None:
    """The grant has these calendars and no others; an id is for those that are new. What is no longer in the list is marked,
    its events go. Nothing happens where another list was asked for later, and is stored."""
    listed = (
        update(accounts)
        .where(
            accounts.c.grant_id == grant_id,
            or_(accounts.c.listed_at.is_(None), accounts.c.listed_at <= asked_at),
        )
        .values(
            listed_at=asked_at,
            lineage_id=lineage_id,
            next_list_at=next_list_at,
            failures=0,
            last_error=None,
        )
        .returning(accounts.c.scheduled)
    )
    scheduled: bool | None = (await tx.execute(listed)).scalar()  # its lock: one list at a time
    if scheduled is None:
        return
    for calendar_id, each in found:
        await _put(tx, grant_id, calendar_id, each, scheduled=scheduled)
    await _mark_gone(tx, grant_id, [each.external_id for _, each in found])


async def _put(tx: Tx, grant_id: UUID, calendar_id: UUID, found: RemoteCalendar, *, scheduled: bool) -> None:
    values = {name: getattr(found, name) for name in ("name", "zone", "access_role", "is_primary", "etag")}
    query = upsert(calendars).values(
        id=calendar_id, grant_id=grant_id, external_id=found.external_id, **values
    )
    query = query.on_conflict_do_update(
        index_elements=["grant_id", "external_id"],
        set_={**values, "deleted_at": None, "updated_at": _clock},
    )
    stored = (await tx.execute(query.returning(calendars.c.id))).scalar_one()
    state = upsert(states).values(
        id=stored, grant_id=grant_id, scheduled=scheduled, next_attempt_at=_clock if scheduled else None
    )
    await tx.execute(state.on_conflict_do_nothing())


async def _mark_gone(tx: Tx, grant_id: UUID, listed: Iterable[str]) -> None:
    gone = (
        update(calendars)
        .where(
            calendars.c.grant_id == grant_id,
            calendars.c.deleted_at.is_(None),
            calendars.c.external_id != all_(cast(list(listed), ARRAY(Text))),
        )
        .values(deleted_at=_clock)
        .returning(calendars.c.id)
    )
    ids = list(await tx.scalars(gone))
    if ids:  # its state too: it may come back, and begins anew then
        await tx.execute(delete(states).where(states.c.id.in_(ids)))
        await tx.execute(delete(events).where(events.c.calendar_id.in_(ids)))


async def want_list(tx: Tx, grant_id: UUID) -> None:
    """The list of its calendars is read again at the next opportunity."""
    soon = {"next_list_at": func.least(accounts.c.next_list_at, _clock)}
    await tx.execute(update(accounts).where(accounts.c.grant_id == grant_id).values(soon))


async def note_list_failed(tx: Tx, grant_id: UUID, *, error: dict[str, Any], next_list_at: datetime) -> None:
    await tx.execute(
        update(accounts)
        .where(accounts.c.grant_id == grant_id)
        .values(failures=accounts.c.failures + 1, last_error=error, next_list_at=next_list_at)
    )


@dataclass(frozen=True, slots=True)
class DueList:
    """A grant whose list of calendars is to be read again."""

    grant_id: UUID
    key: GrantKey
    lineage_id: UUID
    failures: int


async def take_due_lists(tx: Tx, *, rest: timedelta, limit: int) -> list[DueList]:
    """Each is put off, so that no other replica reads it too."""
    due = (
        select(accounts.c.grant_id)
        .join(grants, grants.c.id == accounts.c.grant_id)
        .where(
            accounts.c.scheduled,
            accounts.c.next_list_at <= func.statement_timestamp(),
            grants.c.status == "active",
        )
        .order_by(accounts.c.next_list_at)
        .limit(limit)
        .with_for_update(of=accounts, skip_locked=True)
    )
    ids = func.array(due.scalar_subquery(), type_=ARRAY(Uuid))  # looked for once, and by the key
    taken = (
        update(accounts)
        .where(accounts.c.grant_id == any_(ids), grants.c.id == accounts.c.grant_id)
        .values(next_list_at=_clock + rest)
        .returning(
            accounts.c.grant_id,
            *(grants.c[name] for name in ("provider", "user_id", "account", "lineage_id")),
            accounts.c.failures,
        )
    )
    return [DueList(row[0], GrantKey(*row[1:4]), row[4], row[5]) for row in await tx.execute(taken)]


async def erase_revoked(tx: Tx, *, limit: int) -> int:
    """Deletes accounts of grants that are revoked, with all that was synced by them; how many."""
    being_synced = exists().where(
        calendars.c.grant_id == accounts.c.grant_id,
        states.c.id == calendars.c.id,
        states.c.lease_until > _clock,
    )
    gone = (
        select(accounts.c.grant_id)
        .join(grants, grants.c.id == accounts.c.grant_id)
        .where(grants.c.status == "revoked", ~being_synced)
        .limit(limit)
        .with_for_update(of=accounts, skip_locked=True)
    )
    return (await tx.execute(delete(accounts).where(accounts.c.grant_id.in_(gone)))).rowcount
