"""What the service is made of: values out of the settings, and everything wired together once. Nothing is started.

build(ground) -> Services
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from app import development, settings
from app.api.services import Services
from app.audit.reading import AuditReader
from app.breaker import Breakers
from app.breakers.sharing import BreakerSharing
from app.breakers.switch import BreakerSwitch
from app.clients.registrar import Registrar
from app.clock import DatabaseClock
from app.connect.connect import Connector
from app.connect.tickets import Tickets
from app.consumers.authenticate import Authenticator
from app.consumers.keys import KeyRegistry
from app.consumers.limits import RateLimiter
from app.db import Database
from app.drain import Drain
from app.errors import ConfigurationError, ValidationFailed
from app.grants.answer import Answers
from app.grants.counting import Counting
from app.grants.journal import Journal
from app.grants.known import KnownGrants
from app.grants.ledger import Ledger
from app.grants.protocol import Limits, RefreshProtocol
from app.grants.queue import Queue
from app.grants.reading import GrantReader
from app.grants.refresh import Refresher
from app.grants.registry import GrantRegistry
from app.grants.revoke import Revoker
from app.grants.safekeeping import Safekeeping
from app.grants.slots import Slots
from app.grants.uses import Uses
from app.grants.validate import Validator
from app.grants.waiting import Waiting
from app.jobs import Job, Timetable
from app.listener import Listener
from app.oauth.client import OAuthClients, Registration, fitted
from app.oauth.endpoints import TokenEndpoints
from app.oauth.provider import Provider
from app.resilience import Backoff
from app.settings import Settings
from app.vault.key_ring import parse_keys
from app.vault.vault import Vault


@dataclass(frozen=True)
class Ground:
    """What everything else stands on; `app.main` lays it, and takes it away."""

    read: Settings
    db: Database
    vault: Vault
    listener: Listener
    endpoints: TokenEndpoints
    breakers: Breakers
    clients: OAuthClients
    clock: DatabaseClock
    drain: Drain
    replica: str


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


def build(on: Ground) -> Services:
    """Everything wired together; nothing started."""
    read, db, vault, listener, clock = on.read, on.db, on.vault, on.listener, on.clock
    known, waiting = KnownGrants(db, listener, clock), Waiting(db, listener, clock)
    revoker = Revoker(db, vault, on.endpoints, on.clients, on.drain, clock)
    uses = Uses(db, clock)
    ledger = _ledger(on, known)
    safekeeping = _safekeeping(on, ledger, revoker)
    protocol = _protocol(on, ledger, safekeeping, revoker)
    refresher = Refresher(
        db, known, Answers(vault, clock), protocol, waiting, on.drain, Queue(), clock,
        concurrency=read.refresh_concurrency,
    )  # fmt: skip
    registry = GrantRegistry(db, vault, on.clients, revoker, waiting, known, clock, margin=read.margin)
    tickets = Tickets(vault, clock, base_url=read.base_url)
    connector = Connector(
        db, vault, on.endpoints, on.clients, on.breakers, registry, tickets, clock,
        base_url=read.base_url, return_to=read.return_to,
    )  # fmt: skip
    sharing = BreakerSharing(db, on.breakers, listener, clock, replica=on.replica)
    interval = timedelta(seconds=read.refresh_interval_seconds)
    jobs = _jobs(db, revoker, uses, safekeeping, clock)
    return Services(
        authenticator=Authenticator(db, listener, clock),
        keys=KeyRegistry(db, clock),
        limiter=RateLimiter(clock),
        refresher=refresher,
        registry=registry,
        revoker=revoker,
        uses=uses,
        safekeeping=safekeeping,
        reader=GrantReader(db),
        counting=Counting(db, clock),
        validator=Validator(db, vault, on.endpoints, on.clients, clock),
        connector=connector,
        tickets=tickets,
        clients=on.clients,
        registrar=Registrar(db, vault, on.clients, listener, clock),
        breakers=on.breakers,
        sharing=sharing,
        switch=BreakerSwitch(on.breakers, on.clients, sharing, clock),
        audit=AuditReader(db),
        timetable=Timetable(refresher, on.drain, clock, interval=interval, jobs=jobs),
        drain=on.drain,
        db=db,
        vault=vault,
        clock=clock,
        base_url=read.base_url,
        metrics_key=None if read.metrics_key is None else read.metrics_key.get_secret_value(),
        replica=on.replica,
        started_at=clock.now(),
    )


def _ledger(on: Ground, known: KnownGrants) -> Ledger:
    return Ledger(
        on.db, on.vault, known, on.clock,
        replica=on.replica, commit_within=timedelta(seconds=settings.COMMIT_SECONDS), margin=on.read.margin,
    )  # fmt: skip


def _safekeeping(on: Ground, ledger: Ledger, revoker: Revoker) -> Safekeeping:
    within = timedelta(seconds=settings.JOURNAL_SECONDS)
    journal = Journal(on.read.journal_folder, on.clock, replica=on.replica, within=within)
    return Safekeeping(
        on.db, on.vault, on.clients, ledger, revoker, journal, on.listener, on.drain, on.clock,
        quiet=on.read.lease_ttl * settings.QUIET_LEASES,
    )  # fmt: skip


def _protocol(on: Ground, ledger: Ledger, safekeeping: Safekeeping, revoker: Revoker) -> RefreshProtocol:
    read = on.read
    limits = Limits(
        lease_ttl=read.lease_ttl,
        send_window=timedelta(seconds=settings.SEND_WINDOW_SECONDS),
        hold_at_least=read.lease_ttl * settings.HOLD_LEASES,
    )
    backoff = Backoff(read.retry_attempts, read.retry_base_seconds, read.retry_cap_seconds)
    return RefreshProtocol(
        on.db, on.vault, on.endpoints, on.clients, on.breakers, ledger, safekeeping, Slots(), revoker, on.drain,
        on.clock, replica=on.replica, limits=limits, backoff=backoff,
    )  # fmt: skip


def _jobs(
    db: Database, revoker: Revoker, uses: Uses, safekeeping: Safekeeping, clock: DatabaseClock
) -> list[Job]:
    return [
        Job("set_clock", lambda: db.set_clock(clock), timedelta(minutes=1)),
        Job("revoke_due", revoker.revoke_due, timedelta(seconds=15)),
        Job("replay_journal", safekeeping.replay, timedelta(seconds=5)),
        Job("flush_uses", uses.flush, timedelta(seconds=5)),
    ]


def oauth_clients(read: Settings, catalogue: Mapping[str, Provider]) -> OAuthClients:
    """The registrations of the settings, over the catalogue. Raises ConfigurationError."""
    configured, mistakes = {}, []
    for name, client in read.clients.items():
        secret = client.client_secret
        given = Registration(
            name,
            client.catalogue or name,
            client.client_id,
            None if secret is None else secret.get_secret_value(),
            tuple(client.scopes or ()),
            client.settings,
        )
        try:
            configured[name] = fitted(catalogue, given)
        except ValidationFailed as error:
            setting = f"BROKER_CLIENTS__{name.upper().replace('-', '_')}"
            mistakes += [f"{setting}__{field.upper()}: {wrong}" for field, wrong in error.fields.items()]
    if mistakes:
        raise ConfigurationError(mistakes)
    return OAuthClients(catalogue, configured)


def key_encryption_keys(read: Settings) -> dict[str, bytes]:
    """The key ring of the settings, or development's own. Raises ConfigurationError."""
    if read.encryption_keys is not None:
        text, source = read.encryption_keys.get_secret_value(), "BROKER_ENCRYPTION_KEYS"
    elif read.encryption_keys_file is not None:
        source = "BROKER_ENCRYPTION_KEYS_FILE"
        try:
            text = read.encryption_keys_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError([f"{source}: cannot be read ({error})"]) from error
    else:
        text, source = development.encryption_keys(read.data_dir), "the development key"
    return parse_keys(text, source=source)


def admin_key(read: Settings) -> str | None:
    """The admin key of the settings, or development's own."""
    if read.admin_key is not None:
        return read.admin_key.get_secret_value()
    return development.admin_key(read.data_dir) if read.environment == "development" else None
