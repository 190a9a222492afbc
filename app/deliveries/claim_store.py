"""The SQL of claiming deliveries: what is due is found by provider, and taken in one statement.

    of each provider         the longest due, up to its room; what another replica is taking is left out
    of each batch in these   its row is locked, so that exactly `concurrency` of it are sent at once by all replicas
    there is a place         `sending`, with a claim of its own
    there is none            it waits, without a time, and gets its turn when one of the batch ends
    its batch is held        it stays due, for a few milliseconds

Whoever holds a delivery's row here waits for nobody, and everybody else locks the batch first: nothing deadlocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import (
    ARRAY,
    CTE,
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    Integer,
    Interval,
    Select,
    Text,
    Uuid,
    all_,
    any_,
    case,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    update,
)

from app.deliveries.claimed import Claimed
from app.deliveries.delivery import DeliveryStatus
from app.grants.grant import GrantKey
from app.statements import Prepared, Statements, given
from app.tables import deliveries, delivery_batches

_TIME = DateTime(timezone=True)
# Written into statements: of a parameter PostgreSQL cannot know that a partial index has all there is.
_ONE: ColumnElement[int] = literal_column("1", Integer)
_SENDING = deliveries.c.status == literal(DeliveryStatus.SENDING.value, literal_execute=True)
_OWN = (
    "id", "claim_id", "replica", "sending_since", "consumer_id", "consumer", "batch_id", "first_record", "records",
    "provider", "user_id", "account", "grant_id", "method", "path", "sealed_request", "retry_on", "attempts",
    "max_attempts", "unknowns", "put_back_since",
)  # fmt: skip


@dataclass(frozen=True)
class Taken:
    """`passed`: how many are still due or wait for their turn, since others of their batch are being sent."""

    claimed: list[Claimed]
    passed: int


def clock() -> ColumnElement[Any]:
    """PostgreSQL's time, at this very moment."""
    return func.clock_timestamp(type_=_TIME)


def began() -> ColumnElement[Any]:
    """PostgreSQL's time when the statement began, so that an index can be searched by it."""
    return func.statement_timestamp(type_=_TIME)


def _columns(table: Any = deliveries) -> list[Column[Any]]:
    return [table.c[name] for name in _OWN]


def _providers() -> CTE:
    """Those that have something with a time, each found by one look into the index."""
    timed = deliveries.c.next_attempt_at.is_not(None)
    first = select(deliveries.c.provider).where(timed).order_by(deliveries.c.provider).limit(_ONE)
    found = select(first.subquery("first").c.provider).cte("providers", recursive=True)
    following = (
        select(deliveries.c.provider)
        .where(timed, deliveries.c.provider > found.c.provider)
        .order_by(deliveries.c.provider)
        .limit(_ONE)
        .scalar_subquery()
    )
    return found.union_all(select(following).where(found.c.provider.is_not(None)))


def _due(providers: CTE) -> CTE:
    crowded = (
        func.unnest(given("crowded", ARRAY(Text)), given("rooms", ARRAY(BigInteger)))
        .table_valued("provider", "room", name="crowded")
        .render_derived()
    )
    asked = (
        select(
            providers.c.provider,
            func.coalesce(crowded.c.room, given("each", BigInteger())).label("room"),
        )
        .select_from(providers.outerjoin(crowded, crowded.c.provider == providers.c.provider))
        .where(providers.c.provider.is_not(None))
        .cte("asked")
    )
    ready = (
        select(deliveries.c.id, deliveries.c.batch_id, deliveries.c.next_attempt_at)
        .where(deliveries.c.provider == asked.c.provider, deliveries.c.next_attempt_at <= began())
        .order_by(deliveries.c.next_attempt_at, deliveries.c.id)
        .limit(asked.c.room)
        .with_for_update(of=deliveries, skip_locked=True)
        .lateral("ready")
    )
    return (
        select(ready)
        .select_from(asked.join(ready, true()))
        .order_by(ready.c.next_attempt_at)
        .limit(given("most", BigInteger()))
        .cte("due")
    )


def _held(due: CTE) -> CTE:
    """How many places each of the batches has, by what is true now rather than when the statement began: whoever locks a
    row sees it as it is."""
    batches = delivery_batches.c
    return (
        select(batches.id, free_places().label("free"))
        .where(batches.id == any_(array_of(select(due.c.batch_id))))
        .with_for_update(skip_locked=True)
        .cte("held")
    )


def free_places() -> ColumnElement[int]:
    """Of a batch; none of one that is cancelled, however much of it waits."""
    batches = delivery_batches.c
    return case((batches.cancelled_at.is_(None), batches.concurrency - batches.sending), else_=0)


def array_of(ids: Select[Any]) -> ColumnElement[Any]:
    # They are looked for once, and by the key, however many PostgreSQL takes them for.
    return func.array(ids.scalar_subquery(), type_=ARRAY(Uuid))


def _taken(ids: Select[Any]) -> CTE:
    return (
        update(deliveries)
        .where(deliveries.c.id == any_(array_of(ids)))
        .values(
            status=DeliveryStatus.SENDING,
            claim_id=func.gen_random_uuid(),
            replica=given("replica", Text()),
            sending_since=clock(),
            updated_at=clock(),
            next_attempt_at=None,
        )
        .returning(*_columns())
        .cte("taken")
    )


def _claimed() -> Prepared:
    due = _due(_providers())
    held = _held(due)
    place = func.row_number().over(partition_by=due.c.batch_id, order_by=(due.c.next_attempt_at, due.c.id))
    placed = (
        select(due, held.c.free, place.label("place"))
        .select_from(due.outerjoin(held, held.c.id == due.c.batch_id))
        .cte("placed")
    )
    has_place = or_(placed.c.batch_id.is_(None), func.coalesce(placed.c.place <= placed.c.free, false()))
    taken = _taken(select(placed.c.id).where(has_place))
    waiting = (
        update(deliveries)
        .where(deliveries.c.id == any_(array_of(select(placed.c.id).where(placed.c.place > placed.c.free))))
        .values(next_attempt_at=None)
        .cte("waiting")
    )
    more = select(func.count()).where(placed.c.batch_id == delivery_batches.c.id, has_place)
    # By the locked row as well: constraints see the sum before the row is read as it is now.
    sending = select(delivery_batches.c.concurrency - held.c.free).where(held.c.id == delivery_batches.c.id)
    counted = (
        update(delivery_batches)
        .where(delivery_batches.c.id == any_(array_of(select(placed.c.batch_id).where(has_place))))
        .values(sending=sending.scalar_subquery() + more.scalar_subquery())
        .cte("counted")
    )
    wrap = select(delivery_batches.c.wrap).where(delivery_batches.c.id == taken.c.batch_id)
    return Prepared(
        select(
            *_columns(taken), placed.c.next_attempt_at.label("due_at"), wrap.scalar_subquery().label("wrap")
        )
        .select_from(placed.outerjoin(taken, taken.c.id == placed.c.id))
        .add_cte(waiting, counted)
    )


_CLAIM = _claimed()


async def claim(
    statements: Statements, *, replica: str, most: int, each: int, rooms: Mapping[str, int]
) -> Taken:
    """Up to `most` that are due, the longest waiting first, and of no provider more than `each`, or what `rooms` says of
    it. Committed when it returns; after DatabaseUnavailable perhaps, too, and then they are released after a while."""
    rows = await statements.all(
        _CLAIM, replica=replica, most=most, each=each, crowded=list(rooms), rooms=list(rooms.values())
    )
    taken = [_of(row) for row in rows if row["id"] is not None]
    return Taken(sorted(taken, key=lambda each: each.due_at or each.sending_since), len(rows) - len(taken))


_STUCK = Prepared(
    select(*_columns())
    .where(
        _SENDING,
        deliveries.c.sending_since < began() - given("after", Interval()),
        deliveries.c.id != all_(given("passed_over", ARRAY(Uuid))),
    )
    .order_by(deliveries.c.sending_since)
    .limit(given("most", BigInteger()))
)


async def stuck(
    statements: Statements, *, after: timedelta, limit: int, passed_over: Sequence[UUID] = ()
) -> list[Claimed]:
    """Some that are being sent for longer than that, the longest first, without these. Nothing is taken."""
    found = await statements.all(_STUCK, after=after, most=limit, passed_over=list(passed_over))
    return [_of(row) for row in found]


def _of(row: asyncpg.Record) -> Claimed:
    fields = dict(row)
    key = GrantKey(fields.pop("provider"), fields.pop("user_id"), fields.pop("account"))
    return Claimed(**{**fields, "key": key, "retry_on": row["retry_on"] or ()})
