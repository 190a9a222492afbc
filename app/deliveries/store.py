"""The SQL of how claims on deliveries end: fenced by the claim, with the attempt's line of the history in the same
transaction. All of a batch's is done with the batch's row locked (`turn_store.lock_batch`)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    case,
    func,
    insert,
    literal,
    select,
    update,
)

from app.db import Tx
from app.deliveries.category import Step, Verdict
from app.deliveries.claim_store import clock
from app.deliveries.claimed import Claimed, Ending
from app.deliveries.delivery import DeliveryStatus
from app.deliveries.split import SPLIT, Half
from app.tables import deliveries, delivery_attempts

_NO_CLAIM: dict[str, Any] = {"claim_id": None, "replica": None, "sending_since": None}
_STATUS = {
    Step.DELIVERED: DeliveryStatus.DELIVERED,
    Step.RETRYING: DeliveryStatus.RETRYING,
    Step.SPLIT: DeliveryStatus.CANCELLED,
    Step.DEAD: DeliveryStatus.DEAD,
    Step.CANCELLED: DeliveryStatus.CANCELLED,
}
_BEFORE_THE_END = (DeliveryStatus.QUEUED, DeliveryStatus.RETRYING, DeliveryStatus.DEAD)
_INHERITED = (
    "consumer_id", "consumer", "batch_id", "provider", "user_id", "account", "grant_id", "method", "path",
    "retry_on", "max_attempts",
)  # fmt: skip


class ClaimLost(Exception):
    """It was released, or has ended already."""


async def end(tx: Tx, claimed: Claimed, ending: Ending) -> None:
    """What became of it, and its attempt's line. Raises ClaimLost."""
    verdict, is_over = ending.verdict, ending.step is not Step.RETRYING
    trouble = None if ending.step is Step.DELIVERED else verdict  # an earlier attempt may have arrived
    ended = (
        _held(claimed)
        .values(
            status=_STATUS[ending.step],
            attempts=ending.attempts,
            put_back_since=None,
            unknowns=ending.unknowns,
            category=None if trouble is None else trouble.category,
            code=SPLIT if ending.step is Step.SPLIT else None if trouble is None else trouble.code,
            last_status=verdict.status,
            sealed_response=ending.sealed_response,
            records=0 if ending.step is Step.SPLIT else deliveries.c.records,
            next_attempt_at=None if is_over else _in(ending.after),
            ended_at=clock() if is_over else None,
            updated_at=clock(),
            **_NO_CLAIM,
        )
        .returning(deliveries.c.id)
        .cte("ended")
    )
    line = _line(claimed, verdict, ending.milliseconds)
    added = insert(delivery_attempts).from_select(
        [*line, "delivery_id"], select(*line.values(), ended.c.id), include_defaults=False
    )
    if (await tx.execute(added)).rowcount == 0:
        raise ClaimLost


async def put_back(tx: Tx, claimed: Claimed, verdict: Verdict, *, after: float) -> None:
    """Due again so many seconds later, as if nobody had taken it, but that it says why. Raises ClaimLost."""
    has_begun = deliveries.c.attempts > 0
    query = _held(claimed).values(
        status=case((has_begun, DeliveryStatus.RETRYING), else_=DeliveryStatus.QUEUED),
        next_attempt_at=_in(after),
        put_back_since=func.coalesce(deliveries.c.put_back_since, clock()),
        category=verdict.category,
        code=verdict.code,
        updated_at=clock(),
        **_NO_CLAIM,
    )
    if (await tx.execute(query)).rowcount == 0:
        raise ClaimLost


async def cancel(tx: Tx, claimed: Claimed) -> None:
    """Its batch was cancelled while it was claimed, and it was not tried. Raises ClaimLost."""
    query = _held(claimed).values(
        status=DeliveryStatus.CANCELLED, ended_at=clock(), updated_at=clock(), **_NO_CLAIM
    )
    if (await tx.execute(query)).rowcount == 0:
        raise ClaimLost


async def add_half(tx: Tx, claimed: Claimed, half: Half, sealed: bytes) -> None:
    """In the place of a part of `claimed`. It waits for its turn."""
    inherited = select(
        *(deliveries.c[name] for name in _INHERITED),
        *(
            literal(value, deliveries.c[name].type)
            for name, value in {
                "id": half.id,
                "parent_id": claimed.id,
                "first_record": half.first_record,
                "records": half.records,
                "sealed_request": sealed,
            }.items()
        ),
    ).where(deliveries.c.id == claimed.id)
    names = [*_INHERITED, "id", "parent_id", "first_record", "records", "sealed_request"]
    await tx.execute(insert(deliveries).from_select(names, inherited, include_defaults=False))


async def lock(tx: Tx, delivery_id: UUID) -> None:
    """Until the transaction ends nothing becomes of it but here."""
    await tx.execute(select(deliveries.c.id).where(deliveries.c.id == delivery_id).with_for_update())


async def has_arrived(tx: Tx, delivery_id: UUID) -> bool:
    """Whether one of its attempts has, whose claim was released. It has to be locked."""
    lines = delivery_attempts.c
    query = select(lines.id).where(lines.delivery_id == delivery_id, lines.category.is_(None)).limit(1)
    return (await tx.execute(query)).first() is not None


async def correct(tx: Tx, claimed: Claimed, verdict: Verdict, *, milliseconds: int | None) -> bool:
    """Writes in the history what came of an attempt whose claim was released; whether there is such a line."""
    query = (
        update(delivery_attempts)
        .where(delivery_attempts.c.id == claimed.claim_id)
        .values(
            status=verdict.status, category=verdict.category, code=verdict.code, milliseconds=milliseconds
        )
    )
    return (await tx.execute(query)).rowcount > 0


async def arrived_late(tx: Tx, claimed: Claimed, ending: Ending) -> bool:
    """It is delivered, unless somebody sends it at this moment, or has cancelled it; whether that ended it now. It has to be
    locked."""
    query = (
        update(deliveries)
        .where(
            deliveries.c.id == claimed.id,
            deliveries.c.status.in_(_BEFORE_THE_END),
        )
        .values(
            status=DeliveryStatus.DELIVERED,
            category=None,
            code=None,
            last_status=ending.verdict.status,
            sealed_response=ending.sealed_response,
            next_attempt_at=None,
            ended_at=clock(),
            updated_at=clock(),
        )
    )
    return (await tx.execute(query)).rowcount > 0


def _held(claimed: Claimed) -> Any:
    return update(deliveries).where(deliveries.c.id == claimed.id, deliveries.c.claim_id == claimed.claim_id)


def _in(seconds: float | None) -> ColumnElement[Any]:
    return clock() + func.make_interval(0, 0, 0, 0, 0, 0, seconds or 0.0)


def _line(claimed: Claimed, verdict: Verdict, milliseconds: int | None) -> dict[str, ColumnElement[Any]]:
    lines = delivery_attempts.c
    last = select(func.max(lines.number)).where(lines.delivery_id == claimed.id).scalar_subquery()
    values = {
        "id": claimed.claim_id,
        "at": claimed.sending_since,
        "milliseconds": milliseconds,
        "status": verdict.status,
        "category": verdict.category,
        "code": verdict.code,
        "replica": claimed.replica,
    }
    written: dict[str, ColumnElement[Any]] = {
        name: literal(value, lines[name].type) for name, value in values.items()
    }
    return {**written, "number": func.coalesce(last, 0) + 1}
