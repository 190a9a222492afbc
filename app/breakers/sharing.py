"""Breakers, shared: what one replica comes to, all hear of; what an operator says, all do.

    turned by what was met    noticed -> row, audit event -> announced -> others adopt an opening (closing is each one's own)
    turned by an operator     row, audit event -> done here -> announced -> others do it

What is stored is read at the start, when something was announced or may have been missed, and every 10 s. PostgreSQL may be
away: breakers go on by themselves, and what is still true when it is back is written then.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import datetime, timedelta

from app.audit import store as audit
from app.audit.event import AuditEvent
from app.breaker import Breaker, BreakerKey, Breakers, BreakerState, Judgement, Opening
from app.breakers import store
from app.breakers.store import OpenUntil, Turned
from app.clock import Clock
from app.db import Database
from app.listener import BREAKER_TURNED, Listener
from app.metrics import BREAKER_TURNS
from app.outages import DatabaseUnavailable
from app.telemetry import logger

log = logger(__name__)

_NOTICE_SECONDS = 0.25
_LOOK_SECONDS = 10.0
_AGAIN_SECONDS = 1.0


class BreakerSharing:
    """Tells other replicas how this one's breakers turn, and turns them by what others tell."""

    def __init__(
        self, db: Database, breakers: Breakers, listener: Listener, clock: Clock, *, replica: str
    ) -> None:
        self._db = db
        self._breakers = breakers
        self._clock = clock
        self._replica = replica
        self._announced = listener.mailbox(BREAKER_TURNED)
        self._look_at = 0.0  # by the monotonic clock
        self._told: dict[BreakerKey, Judgement] = {}
        self._obeyed: dict[BreakerKey, datetime] = {}  # resets by operators
        self._counted: dict[BreakerKey, Counter[BreakerState]] = {}
        self._turning = asyncio.Lock()

    async def load(self) -> None:
        """Does what is stored. Raises DatabaseUnavailable."""
        async with self._turning:  # else a reading might be applied after a turn that is newer
            async with self._db.begin() as tx:
                turns = await store.listed(tx)
            for turned in turns:
                if turned.replica != self._replica:
                    self._follow(turned)
        self._look_at = self._clock.monotonic() + _LOOK_SECONDS

    async def watch(self) -> None:
        """Tells and hears, until it is cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_NOTICE_SECONDS):
                    await self._announced.wait()
            try:
                await self._share()
            except DatabaseUnavailable:
                await self._clock.sleep(_AGAIN_SECONDS)
            except Exception:  # breakers have to be shared again once the fault is over
                log.exception("breaker.sharing_failed")
                await self._clock.sleep(_LOOK_SECONDS)

    async def open(self, key: BreakerKey, *, cooldown_seconds: float, operator: str) -> None:
        """On all replicas, for so long. Raises DatabaseUnavailable, and has done nothing then."""
        now = self._clock.monotonic()
        opening = Opening(now, now, now + cooldown_seconds, cooldown_seconds)
        async with self._turning:
            turned = self._turned(key, now, opening, operator=operator)
            await self._order("breaker.open", turned, operator)
            self._breakers.of(key).trip(opening)
        await self._announce()

    async def reset(self, key: BreakerKey, *, operator: str) -> None:
        """On all replicas. Raises DatabaseUnavailable, and has done nothing then."""
        async with self._turning:
            turned = self._turned(key, self._clock.monotonic(), None, operator=operator)
            await self._order("breaker.reset", turned, operator)
            self._breakers.of(key).reset()
        await self._announce()

    async def _order(self, action: str, turned: Turned, operator: str) -> None:
        key = turned.key
        event = AuditEvent(action, actor=operator, provider=key.provider, details={"name": key.name})
        async with self._db.begin() as tx:
            await audit.record(tx, event, now=self._clock.now())
            await store.put(tx, turned)

    async def _share(self) -> None:
        self._count()
        payloads, missed = self._announced.take()
        if missed or any(payload != self._replica for payload in payloads):
            self._look_at = 0.0
        untold = [breaker for breaker in self._breakers if self._untold(breaker) is not None]
        if untold or self._clock.monotonic() >= self._look_at:
            await self.load()  # first, since an operator's word outweighs what we came to before it
        for breaker in untold:
            if (judgement := self._untold(breaker)) is not None:
                await self._tell(breaker.key, judgement)

    def _count(self) -> None:
        for breaker in self._breakers:
            key, before = breaker.key, self._counted.get(breaker.key, Counter())
            for state, times in (breaker.turned - before).items():
                BREAKER_TURNS.labels(key.provider, key.kind, state).inc(times)
                log.info("breaker.turned", name=key.name, turn=state)
            self._counted[key] = breaker.turned.copy()

    def _untold(self, breaker: Breaker) -> Judgement | None:
        """What the breaker came to by itself, if it is still so and nobody was told."""
        judgement = breaker.judgement
        if judgement is None or judgement is self._told.get(breaker.key):
            return None
        state = BreakerState.CLOSED if judgement.opening is None else BreakerState.OPEN
        return judgement if breaker.state is state else None

    async def _tell(self, key: BreakerKey, judgement: Judgement) -> None:
        turned = self._turned(key, judgement.at, judgement.opening)
        details = {"name": key.name, "replica": self._replica}
        if turned.opened is not None:
            details["next_probe_at"] = turned.opened.next_probe_at.isoformat()
        action = "breaker.closed" if turned.opened is None else "breaker.opened"
        async with self._db.begin() as tx:
            await store.put_unless_outdated(tx, turned)
            event = AuditEvent(action, provider=key.provider, details=details)
            await audit.record(tx, event, now=self._clock.now())
        self._told[key] = judgement
        if turned.opened is not None:  # that one replica is content closes nobody else's
            await self._announce()

    async def _announce(self) -> None:
        with suppress(DatabaseUnavailable):
            await self._db.notify(BREAKER_TURNED, self._replica)

    def _follow(self, turned: Turned) -> None:
        """Does what another replica was told or came to, if it still counts. May be repeated."""
        now = self._clock.now()
        if turned.opened is None:
            if turned.operator is not None:
                self._follow_reset(turned)
            return
        if turned.opened.next_probe_at <= now:
            return
        breaker, opening = self._breakers.of(turned.key), self._opening(turned.turned_at, turned.opened)
        if turned.operator is None:
            breaker.adopt(opening, self._clock.monotonic())
        else:
            breaker.trip(opening)

    def _follow_reset(self, turned: Turned) -> None:
        if self._obeyed.get(turned.key) == turned.turned_at:
            return
        self._obeyed[turned.key] = turned.turned_at
        for breaker in self._breakers:
            if breaker.key == turned.key and not self._opened_after(breaker, turned.turned_at):
                breaker.reset()

    def _opened_after(self, breaker: Breaker, time: datetime) -> bool:
        return breaker.opened_at is not None and at(self._clock, breaker.opened_at) > time

    def _turned(
        self, key: BreakerKey, turned_at: float, opening: Opening | None, *, operator: str | None = None
    ) -> Turned:
        opened = None
        if opening is not None:
            since, probe_at = at(self._clock, opening.since), at(self._clock, opening.probe_at)
            opened = OpenUntil(since, probe_at, opening.cooldown_seconds)
        return Turned(key, at(self._clock, turned_at), opened, operator, self._replica)

    def _opening(self, turned_at: datetime, opened: OpenUntil) -> Opening:
        return Opening(
            self._monotonic(opened.since),
            self._monotonic(turned_at),
            self._monotonic(opened.next_probe_at),
            opened.cooldown_seconds,
        )

    def _monotonic(self, time: datetime) -> float:
        return self._clock.monotonic() + (time - self._clock.now()).total_seconds()


def at(clock: Clock, monotonic: float) -> datetime:
    """The time when the monotonic clock showed that."""
    return clock.now() + timedelta(seconds=monotonic - clock.monotonic())
