"""The SQL of breakers: the last turn of each, for replicas that did not hear of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, case, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert

from app.breaker import BreakerKey
from app.db import Tx
from app.tables import breakers


@dataclass(frozen=True)
class OpenUntil:
    """How long it stays open, and since when it was so without a good probe in between."""

    since: datetime
    next_probe_at: datetime
    cooldown_seconds: float


@dataclass(frozen=True)
class Turned:
    """A turn. `opened` None: it closed; `operator` None: the replica came to it by what it met itself."""

    key: BreakerKey
    turned_at: datetime
    opened: OpenUntil | None
    operator: str | None
    replica: str


async def listed(tx: Tx) -> list[Turned]:
    """The last turn of each breaker that was ever turned."""
    turns = []
    for row in await tx.execute(select(breakers)):
        key = BreakerKey(row.provider, row.kind, row.host)
        opened = None
        if row.state == "open":
            opened = OpenUntil(row.since, row.next_probe_at, row.cooldown_seconds)
        turns.append(Turned(key, row.turned_at, opened, row.operator, row.replica))
    return turns


async def put(tx: Tx, turned: Turned) -> None:
    """It is the last turn of its breaker from now on. May be repeated."""
    values = _values(turned)
    await tx.execute(
        upsert(breakers).values(values).on_conflict_do_update(index_elements=["name"], set_=values)
    )


async def put_unless_outdated(tx: Tx, turned: Turned) -> None:
    """The same, unless another turn is later or holds the breaker open for longer. May be repeated.

    An operator's word holds until its time is over, also where a replica that has not heard it closes.
    """
    insert = upsert(breakers).values(_values(turned))
    new = insert.excluded
    gives_way = case(
        (new.state == "open", breakers.c.next_probe_at < new.next_probe_at),
        else_=or_(breakers.c.operator.is_(None), breakers.c.next_probe_at <= new.turned_at),
    )
    await tx.execute(
        insert.on_conflict_do_update(
            index_elements=["name"],
            set_=_values(turned),
            where=and_(breakers.c.turned_at < new.turned_at, or_(breakers.c.state == "closed", gives_way)),
        )
    )


def _values(turned: Turned) -> dict[str, Any]:
    key, opened = turned.key, turned.opened
    return {
        "name": key.name,
        "provider": key.provider,
        "kind": key.kind,
        "host": key.host,
        "state": "closed" if opened is None else "open",
        "turned_at": turned.turned_at,
        "since": None if opened is None else opened.since,
        "next_probe_at": None if opened is None else opened.next_probe_at,
        "cooldown_seconds": None if opened is None else opened.cooldown_seconds,
        "operator": turned.operator,
        "replica": turned.replica,
    }
