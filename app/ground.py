"""What everything else stands on: the settings, PostgreSQL, keys, and ways to others. `app.main` lays it."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass

from app.breaker import Breakers
from app.clock import DatabaseClock
from app.data_keys.keeper import DataKeys
from app.db import Database
from app.drain import Drain
from app.listener import Listener
from app.oauth.client import OAuthClients
from app.oauth.door import Door
from app.oauth.endpoints import TokenEndpoints
from app.resilience import Backoff
from app.settings import Settings
from app.vault.vault import Vault


@dataclass(frozen=True)
class Ground:
    """What everything else stands on; `app.main` lays it, and takes it away."""

    read: Settings
    db: Database
    vault: Vault
    data_keys: DataKeys
    listener: Listener
    endpoints: TokenEndpoints
    api_door: Door
    breakers: Breakers
    clients: OAuthClients
    clock: DatabaseClock
    drain: Drain
    replica: str

    @property
    def backoff(self) -> Backoff:
        """Of requests that may be repeated."""
        read = self.read
        return Backoff(read.retry_attempts, read.retry_base_seconds, read.retry_cap_seconds)


def new_replica() -> str:
    """A name that no other replica has or had."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def new_breakers(read: Settings, clock: DatabaseClock) -> Breakers:
    """A registry without a breaker yet."""
    return Breakers(
        clock.monotonic,
        failures=read.breaker_failures,
        cooldown_seconds=read.breaker_cooldown_seconds,
        cooldown_max_seconds=read.breaker_cooldown_max_seconds,
    )
