"""The SQL of what is heard by push channels. It runs while a provider waits for its answer: a few statements, by keys."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import DateTime, and_, case, func, or_, select, update

from app.calendars.channel import State
from app.calendars.claimed import SOON
from app.db import Tx
from app.tables import calendar_sync_states as states
from app.tables import push_channels as channels

_clock = func.clock_timestamp(type_=DateTime(timezone=True))


@dataclass(frozen=True, slots=True)
class Known:
    """What a notification is held against."""

    id: UUID
    calendar_id: UUID
    channel_id: str
    resource_id: str | None
    secret_hash: bytes = field(repr=False)
    state: str


async def known(tx: Tx, provider: str, channel_ids: Collection[str]) -> dict[str, Known]:
    """Those of the provider's channels that are ours, by its names for them."""
    query = select(*(channels.c[name] for name in Known.__dataclass_fields__)).where(
        channels.c.provider == provider, channels.c.channel_id.in_(channel_ids)
    )
    return {row.channel_id: Known(*row) for row in await tx.execute(query)}


async def note_number(tx: Tx, channel_id: UUID, number: int) -> bool:
    """Whether nothing later was heard of it before."""
    query = (
        update(channels)
        .where(channels.c.id == channel_id, func.coalesce(channels.c.last_message_number, 0) < number)
        .values(last_message_number=number)
    )
    return (await tx.execute(query)).rowcount == 1


async def renew_now(tx: Tx, channel_id: UUID) -> None:
    await tx.execute(
        update(channels)
        .where(channels.c.id == channel_id, channels.c.state == State.OPEN)
        .values(next_attempt_at=func.least(channels.c.next_attempt_at, _clock))
    )


async def want_sync(tx: Tx, calendar_ids: Collection[UUID]) -> None:
    """They are synced 10 s from now, or earlier, as many notifications as there are; one that is being synced, once more. One that
    fails keeps its pauses, which whoever notifies must not shorten."""
    soon, works = _clock + SOON, states.c.failures == 0
    for calendar_id in sorted(calendar_ids):  # in one order, so that nobody waits for each other
        await tx.execute(
            update(states)
            .where(
                states.c.id == calendar_id,
                states.c.scheduled,
                or_(and_(works, states.c.next_attempt_at > soon), states.c.lease_until > _clock),
            )
            .values(
                next_attempt_at=case(
                    (works, func.least(states.c.next_attempt_at, soon)), else_=states.c.next_attempt_at
                ),
                notified_at=_clock,
            )
        )
