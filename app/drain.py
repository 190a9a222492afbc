"""Shutting down. Begun once, at the signal; whatever would begin new work asks here first, and all share one deadline."""

from __future__ import annotations

from datetime import timedelta

from app.clock import Clock

_AT_LEAST_SECONDS = 5.0  # what is left for the last answers, however long the requests under way took


class Drain:
    """Whether this replica is leaving, and how long it may still take."""

    def __init__(self, clock: Clock, *, within: timedelta) -> None:
        self._clock = clock
        self._within = within
        self._begun_at: float | None = None

    @property
    def begun(self) -> bool:
        return self._begun_at is not None

    def begin(self) -> None:
        """May be repeated; the first time counts."""
        if self._begun_at is None:
            self._begun_at = self._clock.monotonic()

    def remaining_seconds(self) -> float:
        """Of the time since it was begun; a few seconds at least."""
        begun_at = self._clock.monotonic() if self._begun_at is None else self._begun_at
        left = begun_at + self._within.total_seconds() - self._clock.monotonic()
        return max(left, _AT_LEAST_SECONDS)
