"""How much a consumer may ask: its `rate`, held by each replica for itself."""

from __future__ import annotations

import math
from uuid import UUID

from cachetools import LRUCache

from app.clock import Clock
from app.consumers.consumer import Consumer
from app.errors import RateLimited
from app.resilience import TokenBucket

_CONSUMERS = 10_000


class RateLimiter:
    """Counts the requests of each consumer that has a rate."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: LRUCache[UUID, TokenBucket] = LRUCache(_CONSUMERS)

    def admit(self, consumer: Consumer) -> None:
        """Counts one request. Raises RateLimited, with the seconds until the next is admitted."""
        if consumer.rate is None:
            return
        now = self._clock.monotonic()
        bucket = self._buckets.get(consumer.id)
        if bucket is None or bucket.rate != consumer.rate:
            bucket = self._buckets[consumer.id] = TokenBucket(consumer.rate, now)
        if wait := bucket.take(now):
            raise RateLimited(
                f"This API key may ask {consumer.rate.limit} times in {consumer.rate.per_seconds} seconds. "
                "Try again shortly.",
                retry_after=max(1, math.ceil(wait)),
            )
