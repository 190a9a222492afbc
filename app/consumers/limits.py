"""How much a consumer may ask: its `rate`, shared by all replicas, at next to no cost while it is far from it.

Each replica takes a share of what is left, a twentieth of the limit, and the next one behind the requests when half of it is
used up. So a request costs a comparison, a statement of SQL is run for every so many, and only a small limit is asked for
one by one. While PostgreSQL is away each replica counts for itself.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any
from uuid import UUID

from cachetools import LRUCache

from app.clock import Clock
from app.consumers import rate_store
from app.consumers.consumer import Consumer
from app.db import Database
from app.errors import RateLimited
from app.outages import DatabaseUnavailable
from app.resilience import Rate, TokenBucket

_CONSUMERS = 10_000
_PARTS = 20
_PATIENCE_SECONDS = 1.0  # with PostgreSQL, before a replica counts for itself
_AWAY_SECONDS = 5.0  # before it is asked again


class _Share:
    """What this replica may still let through by itself."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.size = max(1, rate.limit // _PARTS)
        self.tokens = 0
        self.waiting = 0
        self.good_until = 0.0  # the bucket is full again by then, so what was taken out of it is void
        self.empty_until = 0.0
        self.alone: TokenBucket | None = None
        self.alone_until = 0.0
        self.asking: asyncio.Task[None] | None = None

    def take(self, now: float) -> bool:
        if now < self.alone_until and self.alone is not None:
            wait = self.alone.take(now)
            self.empty_until = now + wait
            return not wait
        if self.tokens < 1 or now >= self.good_until:
            self.tokens = 0
            return False
        self.tokens -= 1
        return True

    @property
    def runs_low(self) -> bool:
        return self.size > 1 and self.tokens <= self.size // 2


class RateLimiter:
    """Counts the requests of each consumer that has a rate."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._shares: LRUCache[UUID, _Share] = LRUCache(_CONSUMERS)
        self._asking: set[asyncio.Task[Any]] = set()

    async def admit(self, consumer: Consumer) -> None:
        """Counts one request. Raises RateLimited, with the seconds until the next is admitted."""
        if consumer.rate is None:
            return
        share = self._shares.get(consumer.id)
        if share is None or share.rate != consumer.rate:
            share = self._shares[consumer.id] = _Share(consumer.rate)
        while not share.take(now := self._clock.monotonic()):
            if now < share.empty_until:
                raise _limited(share, now)
            share.waiting += 1
            try:
                await asyncio.shield(self._asked(consumer.id, share))
            finally:
                share.waiting -= 1
        if share.runs_low:
            self._asked(consumer.id, share)

    def admits(self, consumer: Consumer) -> bool:
        """Counts one request, if nobody has to be asked or waited for whether it is admitted; else counts nothing."""
        if consumer.rate is None:
            return True
        share = self._shares.get(consumer.id)
        if share is None or share.rate != consumer.rate or not share.take(self._clock.monotonic()):
            return False
        if share.runs_low:
            self._asked(consumer.id, share)
        return True

    async def close(self) -> None:
        for asking in self._asking:
            asking.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    def _asked(self, consumer_id: UUID, share: _Share) -> asyncio.Task[None]:
        """The one question for more that is under way."""
        if share.asking is None or share.asking.done():
            share.asking = asyncio.create_task(self._ask(consumer_id, share))
            self._asking.add(share.asking)
            share.asking.add_done_callback(self._asking.discard)
        return share.asking

    async def _ask(self, consumer_id: UUID, share: _Share) -> None:
        await asyncio.sleep(0)  # whoever comes at the same moment is counted among those who wait
        wanted = max(share.size, share.waiting)
        taking = asyncio.create_task(self._taken(consumer_id, share.rate, wanted))
        self._asking.add(taking)
        taking.add_done_callback(self._asking.discard)
        # Not cancelled: on a connection that hangs, that hangs too.
        await asyncio.wait({taking}, timeout=_PATIENCE_SECONDS)
        now = self._clock.monotonic()
        if not taking.done() or (taken := taking.result()) is None:
            share.alone = share.alone or TokenBucket(share.rate, now)
            share.alone_until = now + _AWAY_SECONDS
            return
        share.tokens += taken.tokens
        share.good_until = now + share.rate.per_seconds
        share.empty_until = now + taken.wait_seconds
        share.alone = None

    async def _taken(self, consumer_id: UUID, rate: Rate, wanted: int) -> rate_store.Taken | None:
        """None where PostgreSQL is away."""
        try:
            async with self._db.begin() as tx:
                return await rate_store.take(tx, consumer_id, rate, wanted=wanted)
        except DatabaseUnavailable:
            return None


def _limited(share: _Share, now: float) -> RateLimited:
    rate = share.rate
    return RateLimited(
        f"This API key may ask {rate.limit} times in {rate.per_seconds} seconds. Try again shortly.",
        retry_after=max(1, math.ceil(share.empty_until - now)),
    )
