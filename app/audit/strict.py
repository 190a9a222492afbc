"""Disclosures on record before they are answered. All who wait share one commit; the next one begins when it has ended."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from app.audit import store
from app.audit.event import Disclosure, NewEvent
from app.clock import Clock
from app.db import Database
from app.errors import BrokerError, Overloaded
from app.ids import uuid7
from app.telemetry import current_request_id, logger

log = logger(__name__)

_WITHIN = timedelta(seconds=2)
_MOST = 10_000  # who wait at once
_AT_ONCE = 1000


class NotRecorded(Overloaded):
    """The audit trail cannot be written, so no token is answered."""

    def __init__(self) -> None:
        super().__init__(
            "Tokens are given out only once that is on record, and the record cannot be written at the moment. "
            "Try again shortly.",
            retry_after=2,
        )


@dataclass(frozen=True)
class _Waiting:
    events: Sequence[NewEvent]
    written: asyncio.Future[None]


class StrictDisclosures:
    """No event, no token. An event may be there without its token having arrived: whoever gave up waiting was told so."""

    def __init__(self, db: Database, clock: Clock, *, within: timedelta = _WITHIN) -> None:
        self._db = db
        self._clock = clock
        self._within = within
        self._waiting: deque[_Waiting] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def given(self, disclosures: Sequence[Disclosure]) -> None:
        """Returns when they are committed. Raises NotRecorded within 2 seconds, whatever hangs."""
        if not disclosures:
            return
        if len(self._waiting) >= _MOST:
            raise NotRecorded
        now, request_id = self._clock.now(), current_request_id()
        events = [NewEvent(uuid7(now), request_id, given.event({"count": 1})) for given in disclosures]
        waiting = _Waiting(events, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        try:
            async with asyncio.timeout(self._within.total_seconds()):
                await waiting.written
        except TimeoutError:
            raise NotRecorded from None

    async def flush(self) -> None:
        """Nothing is ever left to write."""

    async def close(self) -> None:
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)

    async def _write_all(self) -> None:
        while batch := self._next_batch():
            failure: Exception | None = None
            try:
                async with self._db.begin() as tx:
                    await store.record_all(tx, [event for waiting in batch for event in waiting.events])
            except BrokerError as error:
                failure = error
            except Exception as error:  # who waits is told, whatever it was
                log.exception("audit.disclosures_failed")
                failure = error
            for waiting in batch:
                if waiting.written.done():
                    continue  # gave up
                if failure is None:
                    waiting.written.set_result(None)
                else:
                    waiting.written.set_exception(NotRecorded())

    def _next_batch(self) -> list[_Waiting]:
        """Those who still wait, up to a number of events."""
        batch: list[_Waiting] = []
        events = 0
        while self._waiting and events < _AT_ONCE:
            waiting = self._waiting.popleft()
            if not waiting.written.done():
                batch.append(waiting)
                events += len(waiting.events)
        return batch
