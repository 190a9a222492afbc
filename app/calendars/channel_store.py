"""The SQL of push channels: which are to be opened, renewed, closed, and what became of that.

Only the row of a channel decides what becomes of an answer: whoever opened one that is no longer wanted here closes it again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    DateTime,
    and_,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from app.calendars.channel import Channel, Opened, State
from app.calendars.heard_store import want_sync
from app.db import Tx
from app.grants.grant import GrantKey
from app.tables import calendar_accounts as accounts
from app.tables import calendar_sync_states as states
from app.tables import calendars, grants
from app.tables import push_channels as channels

TRY = timedelta(minutes=3)  # longer than a try takes, with a refresh and everything
_clock = func.clock_timestamp(type_=DateTime(timezone=True))
_began = func.statement_timestamp(type_=DateTime(timezone=True))
_CLOSING = {"state": State.CLOSING, "next_attempt_at": _clock, "failures": 0}
_is_wanted = and_(accounts.c.scheduled, calendars.c.deleted_at.is_(None))


async def without_one(tx: Tx, *, providers: Collection[str], limit: int) -> list[tuple[UUID, UUID, str]]:
    """Calendars that have been synced once and have no channel: their id, their grant and its provider.

    Their rows are locked, so that of several replicas one adds a channel.
    """
    query = (
        select(calendars.c.id, calendars.c.grant_id, grants.c.provider)
        .join(accounts, accounts.c.grant_id == calendars.c.grant_id)
        .join(grants, grants.c.id == calendars.c.grant_id)
        .join(states, states.c.id == calendars.c.id)
        .where(
            _is_wanted,
            grants.c.status == "active",
            grants.c.provider.in_(providers),
            states.c.last_ok_at.is_not(None),
            ~exists().where(channels.c.calendar_id == calendars.c.id, channels.c.state != State.CLOSING),
        )
        .order_by(calendars.c.id)
        .limit(limit)
        # Not FOR UPDATE, which whoever adds an event would wait for.
        .with_for_update(of=calendars, key_share=True, skip_locked=True)
    )
    found = {row.id: (row.id, row.grant_id, row.provider) for row in await tx.execute(query)}
    # Asked once more, under the locks: who held them before may have added one.
    living = select(channels.c.calendar_id).where(
        channels.c.calendar_id.in_(found), channels.c.state != State.CLOSING
    )
    for calendar_id in await tx.scalars(living):
        found.pop(calendar_id, None)
    return list(found.values())


async def add(tx: Tx, channel_id: UUID, calendar: tuple[UUID, UUID, str], *, secret_hash: bytes) -> None:
    """One that is to be opened at once; `calendar`: its id, its grant and its provider."""
    calendar_id, grant_id, provider = calendar
    await tx.execute(
        insert(channels).values(
            id=channel_id,
            grant_id=grant_id,
            calendar_id=calendar_id,
            provider=provider,
            secret_hash=secret_hash,
            next_attempt_at=_clock,
        )
    )


async def add_successor(tx: Tx, to: UUID, *, id: UUID, secret_hash: bytes) -> None:
    """One that is to be opened in the place of another, unless one is already. The other ends then, or by itself."""
    old = channels.alias()
    row = select(
        literal(id), old.c.grant_id, old.c.calendar_id, old.c.provider, literal(secret_hash), _clock
    ).where(
        old.c.id == to,
        ~exists().where(channels.c.calendar_id == old.c.calendar_id, channels.c.state == State.OPENING),
    )
    names = ["id", "grant_id", "calendar_id", "provider", "secret_hash", "next_attempt_at"]
    await tx.execute(insert(channels).from_select(names, row))
    await tx.execute(
        update(channels).where(channels.c.id == to).values(next_attempt_at=channels.c.expires_at)
    )


async def take_due(tx: Tx, *, limit: int) -> list[Channel]:
    """Up to `limit` that something is to be done about, none that another replica takes at this moment. Each is put off until
    after the try that follows."""
    due = (
        select(channels.c.id)
        .where(channels.c.next_attempt_at <= _began)
        .order_by(channels.c.next_attempt_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    query = (
        update(channels)
        .where(
            channels.c.id.in_(due),
            calendars.c.id == channels.c.calendar_id,
            accounts.c.grant_id == calendars.c.grant_id,
            grants.c.id == channels.c.grant_id,
        )
        .values(next_attempt_at=_clock + TRY)
        .returning(
            *(channels.c[name] for name in ("id", "calendar_id", "state", "channel_id", "resource_id")),
            *(channels.c[name] for name in ("expires_at", "failures")),
            *(calendars.c.external_id, _is_wanted.label("is_wanted")),
            *(grants.c[name] for name in ("provider", "user_id", "account")),
        )
    )
    return [
        Channel(
            *(row.id, row.calendar_id, GrantKey(row.provider, row.user_id, row.account), row.external_id),
            *(State(row.state), row.channel_id, row.resource_id, row.expires_at, row.failures, row.is_wanted),
        )
        for row in await tx.execute(query)
    ]


async def prepare(tx: Tx, channel: Channel, *, secret_hash: bytes) -> bool:
    """It is going to be opened with this secret, and under its `channel_id` if it has one. Whether it is still there to be."""
    values = {
        "state": State.OPENING,
        "channel_id": channel.channel_id,
        "resource_id": None,
        "secret_hash": secret_hash,
        "last_message_number": None,
    }
    return await _changed(tx, channel, [State.OPENING, State.REFUSED], values)


async def note_opened(
    tx: Tx, channel: Channel, opened: Opened, *, secret_hash: bytes, renewal_at: datetime
) -> bool:
    """It is open, and others of its calendar that were are to be closed. False where it has become another's meanwhile."""
    mine, values = channels.c.secret_hash == secret_hash, _opened(opened, renewal_at)
    if not await _changed(tx, channel, [State.OPENING], values, mine):
        return False
    others = (
        update(channels)
        .where(
            channels.c.calendar_id == channel.calendar_id,
            channels.c.id != channel.id,
            channels.c.state == State.OPEN,
        )
        .values(_CLOSING)
    )
    await tx.execute(others)
    await want_sync(tx, [channel.calendar_id])  # of what changed before it was open nothing is heard
    return True


async def note_renewed(tx: Tx, channel: Channel, opened: Opened, *, renewal_at: datetime) -> None:
    await _changed(tx, channel, [State.OPEN], _opened(opened, renewal_at))


async def note_lost(tx: Tx, id: UUID, channel_id: str | None) -> None:
    """The provider has it no more under this name: it is to be opened anew, and what it did not tell is to be looked for."""
    lost = (
        update(channels)
        .where(channels.c.id == id, channels.c.channel_id == channel_id, channels.c.state == State.OPEN)
        .values(state=State.OPENING, channel_id=None, expires_at=None, next_attempt_at=_clock, failures=0)
        .returning(channels.c.calendar_id)
    )
    calendar_id = await tx.scalar(lost)
    if calendar_id is not None:
        await want_sync(tx, [calendar_id])


async def note_refused(tx: Tx, channel: Channel, *, again_at: datetime) -> None:
    """The provider tells nothing of this calendar."""
    values = {"state": State.REFUSED, "channel_id": None, "next_attempt_at": again_at, "failures": 0}
    await _changed(tx, channel, [State.OPENING], values)


async def note_failed(tx: Tx, channel: Channel, *, next_at: datetime) -> None:
    values = {"failures": channels.c.failures + 1, "next_attempt_at": next_at}
    await _changed(tx, channel, [channel.state, State.OPENING], values)


async def close(tx: Tx, channel: Channel) -> None:
    """Nobody wants it any more."""
    await _changed(tx, channel, [State.OPEN], _CLOSING)


async def remove(tx: Tx, channel: Channel) -> None:
    """May be repeated."""
    await tx.execute(delete(channels).where(channels.c.id == channel.id))


async def tidy(tx: Tx, *, limit: int) -> None:
    """Forgets channels that have ended by themselves or whose grant was revoked, since there is no token to close them with;
    has those closed that nobody wants any more."""
    over = and_(channels.c.state.in_([State.OPEN, State.CLOSING]), channels.c.expires_at <= _began)
    gone = (
        select(channels.c.id)
        .join(grants, grants.c.id == channels.c.grant_id)
        .where(or_(over, grants.c.status == "revoked"))
        .limit(limit)
        .with_for_update(of=channels, skip_locked=True)
    )
    await tx.execute(delete(channels).where(channels.c.id.in_(gone)))
    unwanted = (
        select(channels.c.id)
        .join(calendars, calendars.c.id == channels.c.calendar_id)
        .join(accounts, accounts.c.grant_id == calendars.c.grant_id)
        .where(~_is_wanted, channels.c.state == State.OPEN)
        .limit(limit)
        .with_for_update(of=channels, skip_locked=True)
    )
    await tx.execute(update(channels).where(channels.c.id.in_(unwanted)).values(_CLOSING))


def _opened(opened: Opened, renewal_at: datetime) -> dict[str, Any]:
    return {
        "state": State.OPEN,
        "channel_id": opened.channel_id,
        "resource_id": opened.resource_id,
        "expires_at": opened.expires_at,
        "next_attempt_at": renewal_at,
        "failures": 0,
    }


async def _changed(
    tx: Tx, channel: Channel, before: Sequence[State], values: dict[str, Any], *also: ColumnElement[bool]
) -> bool:
    """Whether it was in one of these states."""
    query = update(channels).where(channels.c.id == channel.id, channels.c.state.in_(before), *also)
    return (await tx.execute(query.values(values))).rowcount == 1
