"""Which access tokens were given to whom, in the trail.

aggregated   noted in memory; one event at the first of a consumer, grant and minute, one more with the count of the others
strict       written before the token is answered: no event, no token
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any, Protocol

from app.audit import store
from app.audit.event import AuditEvent, Disclosure, NewEvent
from app.audit.minute import SECONDS, Given, Minute
from app.clock import Clock
from app.db import Database
from app.ids import uuid7
from app.metrics import DISCLOSURES_LOST
from app.telemetry import current_request_id

EVERY = timedelta(seconds=1)
_MOST = 100_000  # in a minute
_MOST_WAITING = 200_000  # while PostgreSQL is away; one such minute is no reason to lose anything of the next
_AT_ONCE = 1000


class Disclosures(Protocol):
    async def given(self, disclosures: Sequence[Disclosure]) -> None:
        """These tokens are about to be answered. Raises Overloaded where they must not be."""
        ...

    async def flush(self) -> None:
        """Writes what is noted. Raises DatabaseUnavailable, and has it still."""
        ...

    async def close(self) -> None:
        """Writes the last of it. Raises DatabaseUnavailable."""
        ...


class AggregatedDisclosures:
    """Costs a fetch no IO. What a process that is killed had noted in its last second is lost, and the count of what followed
    a first one in that minute."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._number = 0
        self._minute = Minute(0.0)  # that of this number
        self._ended: deque[Minute] = deque()
        self._unwritten: deque[NewEvent] = deque()
        self._lost = 0
        self._flushing = asyncio.Lock()

    async def given(self, disclosures: Sequence[Disclosure]) -> None:
        for disclosure in disclosures:
            self.were_given(disclosure, times=1, request_id=current_request_id())

    def were_given(self, disclosure: Disclosure, *, times: int, request_id: str | None) -> None:
        """This token was just answered so many times, the first time to that request."""
        now = self._clock.monotonic()
        if now // SECONDS != self._number:
            self._turn(now)
        if not self._minute.again(disclosure, times, now):
            self._begin(disclosure, times, request_id, now)

    async def flush(self) -> None:
        """Raises DatabaseUnavailable; then the next flush goes on, and no event is written twice."""
        async with self._flushing:
            now = self._clock.monotonic()
            if now // SECONDS != self._number:
                self._turn(now)
            while self._waiting() or self._lost:
                await self._write()

    async def close(self) -> None:
        self._turn(self._clock.monotonic())
        await self.flush()

    def _begin(self, disclosure: Disclosure, times: int, request_id: str | None, now: float) -> None:
        if len(self._minute) >= _MOST:  # a busy minute is told as several
            self._turn(now)
        if self._waiting() >= _MOST_WAITING:
            self._lost += times
            DISCLOSURES_LOST.inc(times)
        else:
            self._minute.begin(disclosure, times, request_id, now)

    def _waiting(self) -> int:
        return sum(minute.waiting for minute in (*self._ended, self._minute)) + len(self._unwritten)

    def _turn(self, now: float) -> None:
        """A new minute begins."""
        self._minute.end()
        if self._minute.waiting:
            self._ended.append(self._minute)
        self._number, self._minute = int(now // SECONDS), Minute(now)

    async def _write(self) -> None:
        room = _AT_ONCE - len(self._unwritten)
        self._unwritten.extend(islice(self._events(), max(0, room)))
        while self._ended and not self._ended[0].waiting:
            self._ended.popleft()
        batch = list(islice(self._unwritten, _AT_ONCE))
        if not batch:
            return
        async with self._db.begin() as tx:
            await store.record_all(tx, batch)
        for _ in batch:
            self._unwritten.popleft()

    def _events(self) -> Iterator[NewEvent]:
        """Of what is not told yet. Whoever takes one has to write it."""
        for minute in (*self._ended, self._minute):
            for told in minute.told():
                yield self._event(*told)
        if self._lost:
            lost, self._lost = self._lost, 0
            event = AuditEvent("token.disclosures_lost", details={"count": lost})
            yield NewEvent(uuid7(self._clock.now()), None, event)

    def _event(self, disclosure: Disclosure, request_id: str | None, given: Given) -> NewEvent:
        now, monotonic = self._clock.now(), self._clock.monotonic()
        first_at, last_at = (
            (now - timedelta(seconds=monotonic - time)).isoformat() for time in (given.first, given.last)
        )
        details: Mapping[str, Any] = {
            "count": given.times,
            "first_at": first_at,
            "last_at": last_at,
        }
        return NewEvent(uuid7(now), request_id, disclosure.event(details))
