"""Breakers by an operator's hand: seen, reset and opened, on every replica."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.breaker import Breaker, BreakerKey, Breakers, BreakerState
from app.breakers.sharing import BreakerSharing, at
from app.clock import Clock
from app.errors import NotFound
from app.oauth.client import OAuthClients


class Turn(StrEnum):
    """What an operator does to a breaker."""

    RESET = "reset"
    OPEN = "open"


@dataclass(frozen=True)
class BreakerView:
    """A breaker at one moment, its times by the clock on the wall."""

    key: BreakerKey
    state: BreakerState
    failures: int
    opened_at: datetime | None
    next_probe_at: datetime | None


class BreakerSwitch:
    """Shows this replica's breakers, and turns them on all replicas."""

    def __init__(
        self, breakers: Breakers, clients: OAuthClients, sharing: BreakerSharing, clock: Clock
    ) -> None:
        self._breakers = breakers
        self._clients = clients
        self._sharing = sharing
        self._clock = clock

    def listed(self) -> list[BreakerView]:
        """By name: one for each token endpoint, issuer and API that we are registered at, asked or not, and those that
        were asked besides."""
        return sorted((self._view(breaker) for breaker in self._all()), key=lambda view: view.key.name)

    async def turn(self, name: str, turn: Turn, *, actor: str) -> BreakerView:
        """The breaker as it is now. May be repeated. Raises NotFound."""
        breaker = next((breaker for breaker in self._all() if breaker.key.name == name), None)
        if breaker is None:
            raise NotFound("There is no breaker of this name; GET /breakers lists them.")
        if turn is Turn.OPEN:
            longest = breaker.cooldown_max_seconds
            await self._sharing.open(breaker.key, cooldown_seconds=longest, operator=actor)
        else:
            await self._sharing.reset(breaker.key, operator=actor)
        return self._view(breaker)

    def _all(self) -> Iterator[Breaker]:
        registered = {client.name for client in self._clients if client.client_id is not None}
        for name in registered:
            client = self._clients.get(name)
            self._breakers.of(client.token_breaker)
            if client.provider.is_discovered:
                self._breakers.of(client.metadata_breaker)
            if client.api_breaker is not None:
                self._breakers.of(client.api_breaker)
        return (breaker for breaker in self._breakers if breaker.key.provider in registered)

    def _view(self, breaker: Breaker) -> BreakerView:
        return BreakerView(
            breaker.key,
            breaker.state,
            breaker.failures,
            None if breaker.opened_at is None else at(self._clock, breaker.opened_at),
            None if breaker.probe_at is None else at(self._clock, breaker.probe_at),
        )
