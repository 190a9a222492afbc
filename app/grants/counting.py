"""Counts the grants for health checks and dashboards, seldom enough that nobody notices on millions of them."""

from __future__ import annotations

import asyncio

from app.clock import Clock
from app.db import Database
from app.grants import census_store
from app.grants.census import Census
from app.outages import DatabaseUnavailable

_DUTY = 20  # a count is good for twenty times as long as it took, ...
_MIN_AGE_SECONDS, _MAX_AGE_SECONDS = 0.5, 60.0  # ... within these bounds


class Counting:
    """Takes the census. Whoever asks while one is being taken shares it."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._last: Census | None = None
        self._good_until = 0.0
        self._running: asyncio.Task[Census] | None = None

    async def census(self, *, within_seconds: float) -> Census:
        """The last census where that is young enough, else a new one; the last one again where PostgreSQL takes too
        long. Raises DatabaseUnavailable where there is none at all."""
        if self._last is not None and self._clock.monotonic() < self._good_until:
            return self._last
        running = self._running = self._running or asyncio.create_task(self._take())
        await asyncio.wait({running}, timeout=within_seconds)
        error = running.exception() if running.done() else None
        if error is not None and not isinstance(error, DatabaseUnavailable):
            raise error
        if self._last is None:
            raise DatabaseUnavailable
        return self._last

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _take(self) -> Census:
        started = self._clock.monotonic()
        try:
            async with self._db.begin() as tx:
                self._last = await census_store.count(tx)
        finally:
            self._running = None
            now = self._clock.monotonic()
            self._good_until = now + min(max(_DUTY * (now - started), _MIN_AGE_SECONDS), _MAX_AGE_SECONDS)
        return self._last
