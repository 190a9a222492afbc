"""The composition root: settings in, one frozen `Services` out, and the application around it.

create_app(settings) -> FastAPI; its lifespan: migrate, load keys, listen, tick ... drain, stop
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI
from fastapi.routing import APIRoute

from app import __version__, development, settings
from app.api import docs, problems, router
from app.api.deps import Services
from app.api.middleware import MAX_BODY_BYTES, BodyLimit, RequestTelemetry
from app.api.openapi import DocumentedApp
from app.audit.reading import AuditReader
from app.breakers.switch import BreakerSwitch
from app.clients.registrar import Registrar
from app.clock import Clock, SystemClock
from app.connect.connect import Connector
from app.connect.tickets import Tickets
from app.consumers.authenticate import Authenticator
from app.consumers.keys import KeyRegistry
from app.consumers.limits import RateLimiter
from app.db import Database, plain_url
from app.drain import Drain
from app.errors import ConfigurationError, ValidationFailed
from app.grants.answer import Answers
from app.grants.known import KnownGrants
from app.grants.ledger import Ledger
from app.grants.protocol import Limits, RefreshProtocol
from app.grants.queue import Queue
from app.grants.reading import GrantReader
from app.grants.refresh import Refresher
from app.grants.registry import GrantRegistry
from app.grants.validate import Validator
from app.grants.waiting import Waiting
from app.jobs import Timetable
from app.listener import Listener
from app.oauth.client import OAuthClients, Registration, fitted
from app.oauth.endpoints import TokenEndpoints
from app.oauth.load import load_catalogue
from app.oauth.provider import Provider
from app.resilience import Backoff, Breakers
from app.settings import Settings
from app.telemetry import BUILD, configure_logging, logger
from app.vault.key_ring import parse_keys
from app.vault.vault import Vault

__all__ = ["Settings", "admin_key", "create_app", "read_settings"]  # what the command line uses

log = logger(__name__)

_DESCRIPTION = """
Backend services ask here for a user's fresh OAuth access token, instead of keeping any.

Every error is a problem (RFC 9457): decide by its `code`; its `detail` may be shown to an end user.
"""


def read_settings(**overrides: object) -> Settings:
    """The settings of this process, with logging set up by them. Raises ConfigurationError."""
    read = settings.read_settings(**overrides)
    configure_logging(log_format=read.log_format, level=read.log_level)
    for sentence in settings.unknown_settings():
        log.warning("settings.unknown", detail=sentence)
    return read


def create_app(read: Settings) -> FastAPI:
    """The application. It asks nothing of PostgreSQL before its lifespan begins."""
    catalogue = load_catalogue(more=read.providers_dir, allow_loopback=read.allow_loopback_upstreams)
    clients = oauth_clients(read, catalogue)
    _warn_of_short_lives(clients, interval_seconds=read.refresh_interval_seconds)
    keys = key_encryption_keys(read)
    clock = SystemClock()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running(read, clients, keys, clock) as services:
            app.state.services = services
            yield

    app = DocumentedApp(
        title="Token broker",
        version=__version__,
        description=_DESCRIPTION,
        openapi_tags=[{"name": name} for name in ("Tokens", "Grants", "OAuth", "Consumers", "Operations")],
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own page, like its other one, fetches its script from the internet
        redoc_url=None,
        generate_unique_id_function=_operation_id,
    )
    problems.install(app)
    docs.install(app)
    router.include(app)
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)
    app.add_middleware(RequestTelemetry, clock=clock)  # the outermost: it answers for all that is inside
    return app


@asynccontextmanager
async def running(
    read: Settings, clients: OAuthClients, keys: Mapping[str, bytes], clock: Clock
) -> AsyncIterator[Services]:
    """The services, from migration to drain. Raises ConfigurationError where keys and database do not fit."""
    if read.database_url is None:
        raise ConfigurationError(
            ["BROKER_DATABASE_URL: is needed here; `broker serve` starts a database without it"]
        )
    async with AsyncExitStack() as stack:
        db = Database(read.database_url)
        stack.push_async_callback(db.close)
        if read.migrate:
            await db.migrate()
        vault = Vault(keys, clock)
        await vault.load(db)
        listener = Listener(plain_url(read.listen_database_url or read.database_url), clock)
        endpoints = TokenEndpoints(timeout_seconds=read.upstream_timeout_seconds)
        stack.push_async_callback(endpoints.close)
        services = build(read, db, vault, listener, endpoints, clients, clock)
        await services.registrar.load()
        stack.push_async_callback(services.authenticator.close)
        stack.push_async_callback(services.refresher.close)
        if (key := admin_key(read)) is not None:
            await services.keys.install_admin_key(key)
        listener.start()
        stack.push_async_callback(listener.stop)
        for watch in (services.registrar.watch(), services.switch.watch()):
            stack.push_async_callback(_cancelled, asyncio.create_task(watch))
        services.timetable.start()
        stack.push_async_callback(_drain, services)
        log.info("started", version=__version__, replica=services.replica)
        yield services


def build(
    read: Settings,
    db: Database,
    vault: Vault,
    listener: Listener,
    endpoints: TokenEndpoints,
    clients: OAuthClients,
    clock: Clock,
) -> Services:
    """Everything wired together; nothing started."""
    replica = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    breakers = Breakers(
        clock.monotonic,
        failures=read.breaker_failures,
        cooldown_seconds=read.breaker_cooldown_seconds,
        cooldown_max_seconds=read.breaker_cooldown_max_seconds,
    )
    commit_within = timedelta(seconds=settings.COMMIT_SECONDS)
    known = KnownGrants(db, listener, clock)
    ledger = Ledger(db, vault, known, clock, replica=replica, commit_within=commit_within, margin=read.margin)
    drain = Drain(clock, within=timedelta(seconds=read.drain_seconds))
    limits = Limits(read.lease_ttl, timedelta(seconds=settings.SEND_WINDOW_SECONDS))
    backoff = Backoff(read.retry_attempts, read.retry_base_seconds, read.retry_cap_seconds)
    protocol = RefreshProtocol(
        db, vault, endpoints, clients, breakers, ledger, drain, clock,
        replica=replica, limits=limits, backoff=backoff,
    )  # fmt: skip
    waiting = Waiting(db, listener, clock)
    refresher = Refresher(
        db,
        known,
        Answers(vault, clock),
        protocol,
        waiting,
        drain,
        Queue(),
        clock,
        concurrency=read.refresh_concurrency,
    )
    registry = GrantRegistry(db, vault, endpoints, clients, waiting, known, clock, margin=read.margin)
    interval = timedelta(seconds=read.refresh_interval_seconds)
    tickets = Tickets(vault, clock, base_url=read.base_url)
    connector = Connector(
        db, vault, endpoints, clients, breakers, registry, tickets, clock,
        base_url=read.base_url, return_to=read.return_to,
    )  # fmt: skip
    return Services(
        authenticator=Authenticator(db, listener, clock),
        keys=KeyRegistry(db, clock),
        limiter=RateLimiter(clock),
        refresher=refresher,
        registry=registry,
        reader=GrantReader(db),
        validator=Validator(db, vault, endpoints, clients, clock),
        connector=connector,
        tickets=tickets,
        clients=clients,
        registrar=Registrar(db, vault, clients, listener, clock),
        breakers=breakers,
        switch=BreakerSwitch(db, breakers, clients, listener, clock),
        audit=AuditReader(db),
        timetable=Timetable(refresher, drain, clock, interval=interval),
        drain=drain,
        db=db,
        vault=vault,
        clock=clock,
        base_url=read.base_url,
        metrics_key=None if read.metrics_key is None else read.metrics_key.get_secret_value(),
        replica=replica,
        started_at=clock.now(),
    )


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


async def _drain(services: Services) -> None:
    """The refreshes under way end; nothing begins. The scheduler's own shutdown would cancel them."""
    services.drain.begin()
    still_running = await services.refresher.land()
    if still_running:
        log.error("drain.incomplete", refreshes=still_running)
    services.timetable.stop()
    log.info("stopped", replica=services.replica)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _warn_of_short_lives(clients: OAuthClients, *, interval_seconds: int) -> None:
    """Tokens that end between two ticks are refreshed only once somebody asks for them, who then has to wait."""
    for client in clients:
        lifetime = client.provider.access_token.lifetime_seconds
        if client.client_id is not None and lifetime is not None and lifetime < 2 * interval_seconds:
            log.warning(
                "settings.interval_too_long",
                provider=client.name,
                detail=f"its tokens live {lifetime} s, so BROKER_REFRESH_INTERVAL_SECONDS should be at most "
                f"{lifetime // 2} (it is {interval_seconds})",
            )


def _operation_id(route: APIRoute) -> str:
    return route.name


BUILD.labels(__version__).set(1)
