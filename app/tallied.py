"""Observations of a histogram, counted here and told to it together: its own way takes two locks for each."""

from __future__ import annotations

from bisect import bisect_left

from prometheus_client import Histogram


class Tallied:
    """Of one histogram that has all its labels. It looks into that, which a test guards."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._bounds = histogram._upper_bounds
        self._clear()

    def observe(self, amount: float) -> None:
        self._counts[bisect_left(self._bounds, amount)] += 1
        self._sum += amount

    def tell(self) -> None:
        """What was observed since the last time."""
        for bucket, count in zip(self._histogram._buckets, self._counts, strict=True):
            if count:
                bucket.inc(count)
        self._histogram._sum.inc(self._sum)
        self._clear()

    def _clear(self) -> None:
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
