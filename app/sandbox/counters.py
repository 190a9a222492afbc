"""What the sandbox counts, so that a test can tell what really reached the provider."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from app.sandbox.tokens import Family


@dataclass
class Flights:
    """Requests at the token endpoint that have no answer yet, and the most there ever were at once.

    `most_by_user` is the most of any one family of that user. Requests overlap only while something delays their
    answers: processing itself is one step.
    """

    now: int = 0
    now_by_family: Counter[str] = field(default_factory=Counter)
    most: int = 0
    most_by_user: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def one(self, family: Family | None) -> Iterator[None]:
        """Counts a request in, and out again however it ends; the family is that of its refresh token."""
        self.now += 1
        self.most = max(self.most, self.now)
        if family is not None:
            self.now_by_family[family.id] += 1
            self.most_by_user[family.user] = max(
                self.most_by_user[family.user], self.now_by_family[family.id]
            )
        try:
            yield
        finally:
            self._land(family)

    def _land(self, family: Family | None) -> None:
        self.now -= 1
        if family is not None:
            self.now_by_family[family.id] -= 1
            if not self.now_by_family[family.id]:
                del self.now_by_family[family.id]

    def reset(self) -> None:
        """Forgets the records; what is in flight stays counted."""
        self.most = self.now
        self.most_by_user.clear()


@dataclass
class Counters:
    """Counted since the start or the last reset.

    `refreshes` are those that changed the state, so an answer lost on its way is among them. `reuse_detected` are
    refresh tokens presented after they were spent, `unknown_refresh_tokens` those never issued.
    """

    hits: Counter[str] = field(default_factory=Counter)
    grant_types: Counter[str] = field(default_factory=Counter)
    refreshes: int = 0
    refreshes_by_user: Counter[str] = field(default_factory=Counter)
    reuse_detected: int = 0
    unknown_refresh_tokens: int = 0

    def refreshed(self, user: str) -> None:
        self.refreshes += 1
        self.refreshes_by_user[user] += 1

    def report(self, flights: Flights) -> dict[str, Any]:
        """The counters as JSON holds them."""
        return {
            "hits": dict(self.hits),
            "grant_types": dict(self.grant_types),
            "refreshes": self.refreshes,
            "refreshes_by_user": dict(self.refreshes_by_user),
            "reuse_detected": self.reuse_detected,
            "unknown_refresh_tokens": self.unknown_refresh_tokens,
            "max_in_flight": flights.most,
            "max_in_flight_per_family": max(flights.most_by_user.values(), default=0),
            "max_in_flight_by_user": dict(flights.most_by_user),
        }
