"""Which access tokens were given to whom, in the trail.

aggregated   noted in memory; one event at the first of a consumer, grant and minute, one more with the count of the others
strict       written before the token is answered: no event, no token
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any, Protocol

from app.audit import store
from app.audit.event import AuditEvent, Disclosure, NewEvent
from app.clock import Clock
from app.db import Database
from app.ids import uuid7
from app.metrics import DISCLOSURES_LOST
from app.telemetry import current_request_id

EVERY = timedelta(seconds=1)
_MINUTE_SECONDS = 60
_MOST = 100_000  # while PostgreSQL is away
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


@dataclass(slots=True)
class _Given:
    """What one consumer was given of one grant, and the trail has not been told. Times are by the monotonic clock."""

    disclosure: Disclosure
    request_id: str | None
    first: float
    last: float
    count: int


class AggregatedDisclosures:
    """Costs a fetch no IO. What a process that is killed had noted in its last second is lost, and the count of what followed
    a first one in that minute."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._minute = 0
        self._present: dict[Disclosure, _Given | None] = {}  # of this minute; None where all is told by now
        self._fresh: deque[_Given] = deque()  # of which no event is made yet
        self._ended: deque[_Given] = deque()  # whose minute is over
        self._unwritten: deque[NewEvent] = deque()
        self._lost = 0
        self._flushing = asyncio.Lock()

    async def given(self, disclosures: Sequence[Disclosure]) -> None:
        for disclosure in disclosures:
            self.were_given(disclosure, times=1, request_id=current_request_id())

    def were_given(self, disclosure: Disclosure, *, times: int, request_id: str | None) -> None:
        """This token was just answered so many times, the first time to that request."""
        now = self._clock.monotonic()
        if now // _MINUTE_SECONDS != self._minute:
            self._turn(now)
        if disclosure not in self._present:
            self._begin(disclosure, times, request_id, now)
        elif (given := self._present[disclosure]) is None:
            self._present[disclosure] = _Given(disclosure, None, now, now, times)
        else:
            given.count += times
            given.last = now

    async def flush(self) -> None:
        """Raises DatabaseUnavailable; then the next flush goes on, and no event is written twice."""
        async with self._flushing:
            now = self._clock.monotonic()
            if now // _MINUTE_SECONDS != self._minute:
                self._turn(now)
            while self._fresh or self._ended or self._unwritten or self._lost:
                await self._write()

    async def close(self) -> None:
        self._turn(self._clock.monotonic())
        await self.flush()

    def _begin(self, disclosure: Disclosure, times: int, request_id: str | None, now: float) -> None:
        if len(self._present) >= _MOST:  # a busy minute is told as several
            self._turn(now)
        if len(self._fresh) + len(self._ended) + len(self._unwritten) >= _MOST:
            self._lost += times
            DISCLOSURES_LOST.inc(times)
            return
        given = _Given(disclosure, request_id, now, now, times)
        self._present[disclosure] = given
        self._fresh.append(given)

    def _turn(self, now: float) -> None:
        """A new minute begins."""
        self._minute = int(now // _MINUTE_SECONDS)
        self._ended.extend(given for given in self._present.values() if given is not None)
        self._present = {}

    async def _write(self) -> None:
        room = _AT_ONCE - len(self._unwritten)
        self._unwritten.extend(islice(self._events(), max(0, room)))
        batch = list(islice(self._unwritten, _AT_ONCE))
        if not batch:
            return
        async with self._db.begin() as tx:
            await store.record_all(tx, batch)
        for _ in batch:
            self._unwritten.popleft()

    def _events(self) -> Iterator[NewEvent]:
        """Of what is not told yet. Whoever takes one has to write it."""
        while self._fresh:
            given = self._fresh.popleft()
            told, given.count = self._event(given), 0
            if self._present.get(given.disclosure) is given:  # there may be many, so none is kept for nothing
                self._present[given.disclosure] = None
            yield told
        while self._ended:
            given = self._ended.popleft()
            if given.count:
                yield self._event(given)
        if self._lost:
            lost, self._lost = self._lost, 0
            event = AuditEvent("token.disclosures_lost", details={"count": lost})
            yield NewEvent(uuid7(self._clock.now()), None, event)

    def _event(self, given: _Given) -> NewEvent:
        now, monotonic = self._clock.now(), self._clock.monotonic()
        first_at, last_at = (
            (now - timedelta(seconds=monotonic - time)).isoformat() for time in (given.first, given.last)
        )
        details: Mapping[str, Any] = {
            "count": given.count,
            "first_at": first_at,
            "last_at": last_at,
        }
        return NewEvent(uuid7(now), given.request_id, given.disclosure.event(details))
