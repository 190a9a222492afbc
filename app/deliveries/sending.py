"""The worker: while anything is due it is claimed, a few at once, and sent.

wake()      after something was accepted, and by the timetable each second
the loop    claim as many as there are places, of one provider at most half of them
            wait for one to end; until nothing is due and nothing is under way
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from app.clock import Clock
from app.db import Database
from app.deliveries import claim_store
from app.deliveries.attempting import Attempts
from app.deliveries.category import BREAKER_OPEN, Step, Verdict
from app.deliveries.claim_store import Taken
from app.deliveries.claimed import Claimed, ending
from app.deliveries.endings import Endings
from app.drain import Drain
from app.errors import Category
from app.metrics import DELIVERIES_SENDING, DELIVERY_WAIT_SECONDS
from app.outages import DatabaseUnavailable
from app.telemetry import logger

log = logger(__name__)

EVERY = timedelta(seconds=1)
_LOOK_SECONDS = 1.0
_GATHER_SECONDS = 0.005  # what ends at almost the same time is followed by one claim
_PASSED_SECONDS = 0.02  # a batch is held by another for about a transaction
_RELEASED_AT_ONCE = 100
_RELEASE_SECONDS = 60.0
_DUE_SECONDS = 25.0
_LEAVING = Verdict(Category.TRANSIENT, "replica_leaving", was_tried=False)


@dataclass(frozen=True)
class Outcome:
    """Of deliveries, since `send_due` was called."""

    claimed: int
    delivered: int
    dead: int


class Sender:
    """Sends what is due; replicas that do so at once share the work. No connection is held while something is sent."""

    def __init__(
        self,
        db: Database,
        attempts: Attempts,
        endings: Endings,
        drain: Drain,
        clock: Clock,
        *,
        replica: str,
        concurrency: int,
        stuck_after: timedelta,
    ) -> None:
        self._db = db
        self._attempts = attempts
        self._endings = endings
        self._drain = drain
        self._clock = clock
        self._replica = replica
        self._concurrency = concurrency
        self._stuck_after = stuck_after
        self._running: dict[asyncio.Task[None], str] = {}  # and at which provider
        self._resting: dict[str, float] = {}  # providers whose breakers are open, until when
        self._counts: Counter[str] = Counter()
        self._awake = asyncio.Event()
        self._working: asyncio.Task[None] | None = None
        self._outage: DatabaseUnavailable | None = None

    def wake(self) -> None:
        """Looks at once whether anything is due. May be repeated; nothing is begun any more while this replica is leaving."""
        if self._drain.begun:
            return
        self._awake.set()
        if self._working is None:
            self._working = asyncio.create_task(self._work(), name="deliveries")

    async def look(self) -> None:
        """`wake`, for the timetable."""
        self.wake()

    async def send_due(self, *, within: float = _DUE_SECONDS) -> Outcome:
        """Sends what is due now and waits for what came of it, so many seconds at most; what is left then goes on behind.
        What others woke this replica for meanwhile is counted too. Raises DatabaseUnavailable."""
        before, self._outage = self._counts.copy(), None
        self.wake()
        if self._working is not None:
            await asyncio.wait({self._working}, timeout=within)
        if self._outage is not None:
            raise self._outage
        counts = self._counts - before
        return Outcome(counts["claimed"], counts[Step.DELIVERED], counts[Step.DEAD])

    async def release_stuck(self, *, within: float = _RELEASE_SECONDS) -> int:
        """Ends claims that are older than one may become, whoever held them; how many. One that fails keeps nobody from the
        next; after so many seconds no further one is begun. Raises DatabaseUnavailable."""
        until = self._clock.monotonic() + within
        released, failed, found = 0, list[UUID](), _RELEASED_AT_ONCE
        while found == _RELEASED_AT_ONCE and not self._is_over(until):
            stuck = await claim_store.stuck(
                self._db.statements,
                after=self._stuck_after,
                limit=_RELEASED_AT_ONCE,
                passed_over=failed,
            )
            found = len(stuck)
            for claimed in stuck:
                if self._is_over(until):
                    break
                try:
                    released += await self._endings.release(claimed) is not None
                except DatabaseUnavailable:
                    raise
                except Exception:
                    log.exception("delivery.not_released", delivery_id=str(claimed.id))
                    failed.append(claimed.id)
        if released:
            self.wake()
        return released

    def _is_over(self, until: float) -> bool:
        return self._drain.begun or self._clock.monotonic() >= until

    async def land(self) -> int:
        """Waits for what is being sent while the drain lasts; how many are left, which others release as stuck."""
        until = self._clock.monotonic() + self._drain.remaining_seconds()
        while under_way := {*self._running, *([] if self._working is None else [self._working])}:
            left = until - self._clock.monotonic()
            if left <= 0:
                break
            await asyncio.wait(under_way, timeout=left)
        return len(self._running)

    async def _work(self) -> None:
        try:
            while not self._drain.begun:
                self._awake.clear()
                taken = await self._claim()
                if not (self._running or taken.passed or self._awake.is_set()):
                    break
                await self._wait(taken)
        except DatabaseUnavailable as error:
            self._outage = error
            log.warning("deliveries.not_claimed", detail=error.detail)
        except Exception:  # the next second tries again
            log.exception("deliveries.crashed")
        finally:
            self._working = None

    async def _claim(self) -> Taken:
        """As many as there is room for; none where there is none."""
        most = self._concurrency - len(self._running)
        if most <= 0:
            return Taken([], 0)
        half = max(1, self._concurrency // 2)
        now = self._clock.monotonic()
        self._resting = {name: until for name, until in self._resting.items() if until > now}
        busy = Counter(self._running.values())
        rooms = {name: min(most, max(0, half - count)) for name, count in busy.items()}
        taken = await claim_store.claim(
            self._db.statements,
            replica=self._replica,
            most=most,
            each=min(most, half),
            rooms={**rooms, **dict.fromkeys(self._resting, 0)},
        )
        if self._drain.begun:  # while PostgreSQL was asked
            for claimed in taken.claimed:
                await self._endings.end(claimed, replace(ending(claimed, _LEAVING), after=0.0))
            return Taken([], taken.passed)
        for claimed in taken.claimed:
            self._begin(claimed)
        return taken

    def _begin(self, claimed: Claimed) -> None:
        self._counts["claimed"] += 1
        if claimed.due_at is not None:
            waited = (claimed.sending_since - claimed.due_at).total_seconds()
            DELIVERY_WAIT_SECONDS.labels(claimed.key.provider).observe(max(0.0, waited))
        task = asyncio.create_task(self._send(claimed))
        self._running[task] = claimed.key.provider
        DELIVERIES_SENDING.set(len(self._running))
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        DELIVERIES_SENDING.set(len(self._running))

    async def _send(self, claimed: Claimed) -> None:
        try:
            ended = await self._attempts.make(claimed)
        except DatabaseUnavailable as error:
            log.warning("delivery.not_ended", delivery_id=str(claimed.id), detail=error.detail)
            return
        except Exception:  # it is released as stuck, and sent again
            log.exception("delivery.crashed", delivery_id=str(claimed.id))
            return
        self._counts[ended.step] += 1
        verdict = ended.verdict
        if verdict.code == BREAKER_OPEN and not verdict.was_tried:
            self._resting[claimed.key.provider] = self._clock.monotonic() + (verdict.retry_after or 1.0)

    async def _wait(self, taken: Taken) -> None:
        """Until claiming again may find something: more was due than could be taken, one has ended, or somebody woke us."""
        if not self._running or (taken.passed and not taken.claimed):
            await self._clock.sleep(_PASSED_SECONDS)
            return
        awake = asyncio.create_task(self._awake.wait())
        try:
            await asyncio.wait(
                {awake, *self._running}, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            awake.cancel()
        await self._clock.sleep(_GATHER_SECONDS)
