"""Breakers by an operator's hand: seen, reset and opened, on every replica.

Each replica judges upstreams by what it sees itself. An operator's word is applied here, written to the audit trail and
announced; the others hear it within moments.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.audit import store as audit
from app.audit.event import AuditEvent
from app.clock import Clock
from app.db import Database, DatabaseUnavailable
from app.errors import NotFound
from app.listener import BREAKER_TURNED, Listener
from app.oauth.client import OAuthClients
from app.resilience import Breaker, BreakerKey, Breakers, BreakerState
from app.telemetry import logger

log = logger(__name__)


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
        self, db: Database, breakers: Breakers, clients: OAuthClients, listener: Listener, clock: Clock
    ) -> None:
        self._db = db
        self._breakers = breakers
        self._clients = clients
        self._listener = listener
        self._clock = clock
        self._announced = listener.mailbox(BREAKER_TURNED)
        self._signature = secrets.token_hex(8)  # our own announcements come back to us

    def listed(self) -> list[BreakerView]:
        """By name: one for each token endpoint that we are registered at, used or not, and those of other kinds."""
        return sorted((self._view(breaker) for breaker in self._all()), key=lambda view: view.key.name)

    async def turn(self, name: str, turn: Turn, *, actor: str) -> BreakerView:
        """The breaker as it is now. May be repeated. Raises NotFound."""
        breaker = next((breaker for breaker in self._all() if breaker.key.name == name), None)
        if breaker is None:
            raise NotFound("There is no breaker of this name; GET /breakers lists them.")
        event = AuditEvent(
            f"breaker.{turn}", actor=actor, provider=breaker.key.provider, details={"name": name}
        )
        async with self._db.begin() as tx:
            await audit.record(tx, event, now=self._clock.now())
        self._apply(name, turn)
        with suppress(DatabaseUnavailable):
            await self._db.notify(BREAKER_TURNED, json.dumps([name, turn, self._signature]))
        return self._view(breaker)

    async def watch(self) -> None:
        """Does what operators told other replicas, until it is cancelled."""
        while True:
            await self._announced.wait()
            for payload in self._announced.take()[0]:
                try:
                    name, turn, signature = json.loads(payload)
                    if signature != self._signature:
                        self._apply(name, Turn(turn))
                except (ValueError, TypeError):  # a replica of another version may know turns that we do not
                    log.warning("breaker.announcement_unknown")

    def _apply(self, name: str, turn: Turn) -> None:
        breaker = next((breaker for breaker in self._all() if breaker.key.name == name), None)
        if breaker is None:
            return
        if turn is Turn.RESET:
            breaker.reset()
        else:
            breaker.trip(self._clock.monotonic())
        log.info("breaker.turned", name=name, turn=turn)

    def _all(self) -> Iterator[Breaker]:
        registered = {client.name for client in self._clients if client.client_id is not None}
        for name in registered:
            self._breakers.of(self._clients.get(name).token_breaker)
        return (breaker for breaker in self._breakers if breaker.key.provider in registered)

    def _view(self, breaker: Breaker) -> BreakerView:
        closed = breaker.state is BreakerState.CLOSED
        return BreakerView(
            breaker.key,
            breaker.state,
            breaker.failures,
            None if closed or breaker.opened_at is None else self._at(breaker.opened_at),
            None if closed else self._at(breaker.probe_at),
        )

    def _at(self, monotonic: float) -> datetime:
        return self._clock.now() + timedelta(seconds=monotonic - self._clock.monotonic())
