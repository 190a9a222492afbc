"""Turns at APIs, reserved in PostgreSQL together with all other replicas, or, while it is away, out of this replica's own part.

What this one reserves it also counts for itself, so that the part it goes on with is what is left of it; and what it let through by
itself is counted for all as soon as PostgreSQL is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from cachetools import LRUCache

from app.apis import rate_store
from app.apis.window import SECOND, Book, Demand, Reserved, Turn, Window, reserve
from app.clock import Clock
from app.db import Database
from app.outages import DatabaseUnavailable
from app.resilience import Rate
from app.telemetry import logger

log = logger(__name__)

_BOOKS = 20_000
_PATIENCE_SECONDS = 1.0  # with PostgreSQL, before a replica goes on by itself
_AWAY_SECONDS = 5.0  # before it is asked again
_SUPPOSED = 4  # replicas, where nobody has said how many there are

Scope = tuple[str, UUID]  # a registration, and a grant of it or NOBODY
Rates = Mapping[UUID, Sequence[Rate]]


class Reservations:
    """Never waits for PostgreSQL longer than a second."""

    def __init__(self, db: Database, clock: Clock, *, replica: str) -> None:
        self._db = db
        self._clock = clock
        self._replica = replica
        self._away_until = 0.0
        self._late = 0  # microseconds that PostgreSQL took of late
        self._mine: LRUCache[Scope, Book] = LRUCache(_BOOKS)  # by the monotonic clock
        self._uncounted: LRUCache[Scope, int] = LRUCache(_BOOKS)
        self._seen: LRUCache[str, int] = LRUCache(_BOOKS)
        self._asking: set[asyncio.Task[Any]] = set()

    async def reserved(
        self, provider: str, rates: Rates, *, waiting: int, pace: float, steady: float, late: float
    ) -> Reserved:
        """Turns that fit all rates, by the monotonic clock. `late`: seconds until use can be made of one, apart from what
        PostgreSQL takes."""
        demand = Demand(self._replica, waiting, pace, self._late + int(late * SECOND), steady)
        now = self._clock.monotonic()
        if now < self._away_until:
            return self._alone(provider, rates, demand)
        if self._away_until:
            self._away_until = now + _AWAY_SECONDS  # others go on by themselves until this one knows
        asking = asyncio.create_task(self._together(provider, rates, demand))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        # Not cancelled: on a connection that hangs, that hangs too.
        await asyncio.wait({asking}, timeout=_PATIENCE_SECONDS)
        if asking.done() and (reserved := asking.result()) is not None:
            self._away_until = 0.0
            return reserved
        self._away_until = self._clock.monotonic() + _AWAY_SECONDS
        return self._alone(provider, rates, demand)

    async def close(self) -> None:
        for asking in self._asking:
            asking.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    async def _together(self, provider: str, rates: Rates, demand: Demand) -> Reserved | None:
        """None where PostgreSQL is away."""
        try:
            reserved = await self._asked(provider, rates, demand)
        except DatabaseUnavailable:
            return None
        except Exception:  # a call goes on, whatever is wrong here
            log.exception("rates.failed", provider=provider)
            return None
        self._seen[provider] = reserved.seen
        self._count(provider, rates, reserved)
        return reserved

    async def _asked(self, provider: str, rates: Rates, demand: Demand) -> Reserved:
        scopes = {scope: self._uncounted.get((provider, scope), 0) for scope in rates}
        async with self._db.begin() as tx:
            asked_at = self._micros()
            now, books = await rate_store.locked(tx, provider, rates)
            answered_at = self._micros()
            self._late = max(answered_at - asked_at, self._late * 9 // 10)
            counted = (_counting(books[scope], now, count) for scope, count in scopes.items())
            kept, reserved = reserve(tuple(counted), now, demand)
            for scope, book in zip(rates, kept, strict=True):
                await rate_store.put(tx, provider, scope, book)
        for scope, count in scopes.items():
            if count:
                self._uncounted[provider, scope] -= count
        # PostgreSQL's `now` was somewhere between: turns begin by the later end, and end by the earlier one.
        return reserved.moved(answered_at - now, late=answered_at - asked_at)

    def _alone(self, provider: str, rates: Rates, demand: Demand) -> Reserved:
        parts = self._seen.get(provider, _SUPPOSED)
        books = [self._my_book(provider, scope, rates[scope], parts=parts) for scope in rates]
        _, reserved = reserve(books, self._micros(), demand)
        self._count(provider, rates, reserved)
        for scope in rates:
            uncounted = self._uncounted.get((provider, scope), 0) + sum(turn.count for turn in reserved.turns)
            self._uncounted[provider, scope] = min(uncounted, max(rate.limit for rate in rates[scope]))
        return reserved

    def _count(self, provider: str, rates: Rates, reserved: Reserved) -> None:
        for scope in rates:
            book = self._my_book(provider, scope, rates[scope], parts=1).at(self._micros())
            for turn in reserved.turns:
                book = book.counting(turn)
            self._mine[provider, scope] = book

    def _my_book(self, provider: str, scope: UUID, rates: Sequence[Rate], *, parts: int) -> Book:
        """What this replica reserved, in `parts` of the limits."""
        book = self._mine.get((provider, scope), Book())
        counts = {window.rate.per_seconds: window.counts for window in book.windows}
        windows = (
            Window(replace(rate, limit=max(1, rate.limit // parts)), counts.get(rate.per_seconds, {}))
            for rate in rates
        )
        return replace(book, windows=tuple(windows))

    def _micros(self) -> int:
        return int(self._clock.monotonic() * SECOND)


def _counting(book: Book, now: int, count: int) -> Book:
    return book.counting(Turn(now, now + 1, count)) if count else book
