"""What the gateway's cache came to, on this replica since its start."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

from app.metrics import PROXY_CACHE


class Outcome(StrEnum):
    """Of a call; `revalidated` and `evicted` are told besides."""

    HIT = "hit"
    MISS = "miss"
    COALESCED = "coalesced"
    BYPASS = "bypass"
    REVALIDATED = "revalidated"  # a miss for which the provider sent no body
    EVICTED = "evicted"  # an answer that had to go for others


class Counts:
    """By provider and outcome, here and in the metrics."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, Outcome]] = Counter()

    def add(self, provider: str, outcome: Outcome) -> None:
        self._counts[provider, outcome] += 1
        PROXY_CACHE.labels(provider, outcome).inc()

    def of(self, provider: str | None, outcome: Outcome) -> int:
        """Of one provider, or of all."""
        return sum(
            times
            for (name, which), times in self._counts.items()
            if which is outcome and provider in {None, name}
        )

    @property
    def providers(self) -> set[str]:
        return {provider for provider, _ in self._counts}
