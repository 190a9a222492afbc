"""The SQL of APIs' rates: what is reserved of them, by registration and by grant, and pauses that providers asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import BigInteger, cast, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from app.apis.window import SECOND, Book, Window
from app.db import Tx
from app.resilience import Rate
from app.tables import api_rates

NOBODY = UUID(int=0)  # all grants of a registration together

_NOW = cast(func.extract("epoch", func.clock_timestamp()) * SECOND, BigInteger)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Hold:
    """The provider wants to be left alone for so many seconds more, by a grant or (NOBODY) by a registration."""

    provider: str
    grant_id: UUID
    seconds: float


async def locked(tx: Tx, provider: str, rates: Mapping[UUID, Sequence[Rate]]) -> tuple[int, dict[UUID, Book]]:
    """The books of these grants, which nobody else may change meanwhile; and PostgreSQL's time, not later than now."""
    ids = sorted(rates)
    query = (
        select(api_rates, _NOW.label("now"))
        .where(api_rates.c.provider == provider, api_rates.c.grant_id.in_(ids))
        .order_by(api_rates.c.grant_id)  # else two of them might wait for each other
        .with_for_update()
    )
    rows = (await tx.execute(query)).all()
    if len(rows) < len(ids):
        new = upsert(api_rates).values([{"provider": provider, "grant_id": each} for each in ids])
        await tx.execute(new.on_conflict_do_nothing())
        rows = (await tx.execute(query)).all()
    books = {
        row.grant_id: Book(
            tuple(_window(rate, row.windows) for rate in rates[row.grant_id]),
            row.askers,
            0 if row.held_until is None else _micros(row.held_until),
        )
        for row in rows
    }
    return min(row.now for row in rows), books


async def put(tx: Tx, provider: str, grant_id: UUID, book: Book) -> None:
    """The book as it is from now on."""
    windows = {str(window.rate.per_seconds): dict(window.counts) for window in book.windows}
    await tx.execute(
        update(api_rates)
        .where(api_rates.c.provider == provider, api_rates.c.grant_id == grant_id)
        .values(windows=windows, askers=dict(book.askers), void_at=_time(book.void_at))
    )


async def hold(tx: Tx, held: Hold) -> None:
    """Until so many seconds from now; a longer one that is there already stays."""
    until = func.clock_timestamp() + timedelta(seconds=held.seconds)
    new = upsert(api_rates).values(
        provider=held.provider, grant_id=held.grant_id, held_until=until, void_at=until
    )
    await tx.execute(
        new.on_conflict_do_update(
            index_elements=["provider", "grant_id"],
            set_={
                "held_until": func.greatest(api_rates.c.held_until, new.excluded.held_until),
                "void_at": func.greatest(api_rates.c.void_at, new.excluded.void_at),
            },
        )
    )


async def free(tx: Tx, provider: str) -> None:
    """Ends all pauses of the provider. May be repeated."""
    is_held = (api_rates.c.provider == provider, api_rates.c.held_until.is_not(None))
    await tx.execute(update(api_rates).where(*is_held).values(held_until=None))


async def held(tx: Tx, *, most: int) -> list[Hold]:
    """The pauses that are not over, those that end last first."""
    left = func.extract("epoch", api_rates.c.held_until - func.clock_timestamp())
    query = (
        select(api_rates.c.provider, api_rates.c.grant_id, left.label("seconds"))
        .where(api_rates.c.held_until > func.now())
        .order_by(api_rates.c.held_until.desc())
        .limit(most)
    )
    return [Hold(row.provider, row.grant_id, float(row.seconds)) for row in await tx.execute(query)]


async def sweep(tx: Tx, *, most: int) -> int:
    """Deletes up to `most` that say nothing any more; answers how many."""
    void = (
        select(api_rates.c.provider, api_rates.c.grant_id)
        .where(api_rates.c.void_at < func.now())
        .order_by(api_rates.c.void_at)
        .limit(most)
        .with_for_update(skip_locked=True)
        .subquery()
    )
    query = delete(api_rates).where(
        api_rates.c.provider == void.c.provider, api_rates.c.grant_id == void.c.grant_id
    )
    return (await tx.execute(query)).rowcount


def _window(rate: Rate, windows: Mapping[str, Mapping[str, int]]) -> Window:
    counts = windows.get(str(rate.per_seconds), {})
    return Window(rate, {int(cell): count for cell, count in counts.items()})


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


def _time(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)
