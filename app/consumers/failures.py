"""Wrong keys, counted by where they come from: whoever guesses gets no answer for the rest of a minute.

Each replica counts for itself: a guess at 256 random bits is hopeless anyhow, and this is to make it cheap to refuse.
"""

from __future__ import annotations

import math

from cachetools import LRUCache

from app.clock import Clock
from app.consumers.callers import neighbourhood

MAX_FAILURES = 20
WINDOW_SECONDS = 60.0
_CALLERS = 10_000


class _Window:
    def __init__(self, now: float) -> None:
        self.ends_at = now + WINDOW_SECONDS
        self.failures = 0


class Failures:
    """`most` in a minute from an address, or from a /64 of IPv6. The 10,000 callers that failed last are remembered."""

    def __init__(self, clock: Clock, *, most: int = MAX_FAILURES) -> None:
        self._clock = clock
        self._most = most
        self._windows: LRUCache[str, _Window] = LRUCache(_CALLERS)

    def wait(self, address: str | None) -> int:
        """Seconds until another key from that address is looked at; 0: now."""
        if not self._windows:
            return 0
        window = self._windows.get(neighbourhood(address))
        now = self._clock.monotonic()
        if window is None or window.failures < self._most or now >= window.ends_at:
            return 0
        return max(1, math.ceil(window.ends_at - now))

    def count(self, address: str | None) -> bool:
        """Counts a wrong key. Whether it is the one after which no other is looked at."""
        caller, now = neighbourhood(address), self._clock.monotonic()
        window = self._windows.get(caller)
        if window is None or now >= window.ends_at:
            window = self._windows[caller] = _Window(now)
        window.failures += 1
        return window.failures == self._most
