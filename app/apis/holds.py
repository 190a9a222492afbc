"""Pauses that providers ask for with 429 and `Retry-After`: who is not asked before when, on every replica."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import UUID

from app.apis import rate_store
from app.apis.rate_store import Hold
from app.clock import Clock
from app.db import Database
from app.listener import API_HELD, Listener
from app.outages import DatabaseUnavailable

_MOST = 10_000
_LOOK_SECONDS = 10.0
_DIFFERENCE_SECONDS = 0.1  # between clocks, and ways


class Holds:
    """What is stored is read when some were announced or may have been missed, and every 10 s."""

    def __init__(self, db: Database, listener: Listener, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._announced = listener.mailbox(API_HELD)
        self._until: dict[tuple[str, UUID], float] = {}
        self._writing: set[asyncio.Task[None]] = set()

    def __bool__(self) -> bool:
        return bool(self._until)

    def until(self, provider: str, *grant_ids: UUID) -> float:
        """By the monotonic clock; 0 where none is known."""
        return max(self._until.get((provider, each), 0.0) for each in grant_ids)

    def hold(self, provider: str, grant_id: UUID, seconds: float) -> float | None:
        """At this replica at once, at the others a moment later. Answers until when; None where it is held as long already."""
        hold = Hold(provider, grant_id, seconds)
        until = self._adopted(hold)
        if until is not None:
            writing = asyncio.create_task(self._write(hold))
            self._writing.add(writing)
            writing.add_done_callback(self._writing.discard)
        return until

    async def load(self) -> list[tuple[Hold, float]]:
        """Adopts what is stored. Answers what is new, and until when it is. Raises DatabaseUnavailable."""
        now = self._clock.monotonic()
        async with self._db.begin() as tx:
            stored = await rate_store.held(tx, most=_MOST)
        self._until = {key: until for key, until in self._until.items() if until > now}
        return [(hold, until) for hold in stored if (until := self._adopted(hold)) is not None]

    async def heard(self) -> None:
        """Until there is reason to load them."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._announced.wait()
        self._announced.take()

    async def close(self) -> None:
        """What is not written yet is let go: who asks too early is told so again."""
        for writing in self._writing:
            writing.cancel()
        await asyncio.gather(*self._writing, return_exceptions=True)

    def _adopted(self, hold: Hold) -> float | None:
        """Until when, where that is longer than was known."""
        key, until = (hold.provider, hold.grant_id), self._clock.monotonic() + hold.seconds
        if hold.seconds <= 0 or until < self._until.get(key, 0.0) + _DIFFERENCE_SECONDS:
            return None
        if len(self._until) >= _MOST:
            self._until.pop(min(self._until, key=self._until.__getitem__))
        self._until[key] = until
        return until

    async def _write(self, hold: Hold) -> None:
        with suppress(DatabaseUnavailable):
            async with self._db.begin() as tx:
                await rate_store.hold(tx, hold)
            await self._db.notify(API_HELD, hold.provider)
