"""Backoff and rates: how soon again, and how often. No IO, no clock: `now` is given. Breakers are in `breaker`."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Full jitter: a delay drawn evenly from nothing to `base * factor ** (tries - 1)`, at most `cap`."""

    attempts: int = 3
    base_seconds: float = 1.0
    cap_seconds: float = 10.0
    factor: float = 2.0

    def delay(self, tries: int, *, retry_after: float | None = None) -> float | None:
        """Seconds to wait after the `tries`-th try, or None when there is no point in another one.

        `Retry-After` is honoured: a longer one than the cap ends the operation.
        """
        if tries >= self.attempts:
            return None
        if retry_after is not None:
            return retry_after if retry_after <= self.cap_seconds else None
        ceiling = min(self.cap_seconds, self.base_seconds * self.factor ** (tries - 1))
        return random.uniform(0, ceiling)


@dataclass(frozen=True)
class Rate:
    """`limit` requests in `per_seconds`; as many may come at once."""

    limit: int
    per_seconds: int


class TokenBucket:
    """Holds as many tokens as the rate's limit, and fills evenly. It begins full."""

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._tokens = float(rate.limit)
        self._at = now

    def take(self, now: float) -> float:
        """0 where a token was taken, else the seconds until there is one."""
        per_second = self.rate.limit / self.rate.per_seconds
        self._tokens = min(self.rate.limit, self._tokens + max(0.0, now - self._at) * per_second)
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) / per_second
        self._tokens -= 1
        return 0.0
