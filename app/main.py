"""The composition root: settings in, one frozen `Services` out, and the application around it.

create_app(settings) -> FastAPI; its lifespan: migrate, load keys, listen, tick ... drain, stop
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta

from fastapi import FastAPI

from app import __version__, environment
from app.api import docs, problems, router
from app.api.lane import BrokerApp, Lane
from app.api.load import Load
from app.api.middleware import MAX_BODY_BYTES, BodyLimit, RequestTelemetry
from app.api.proxy import Shortcut
from app.api.services import Services
from app.apis.caller import MAX_API_ANSWER_BYTES
from app.audit.disclosures import AggregatedDisclosures
from app.clock import DatabaseClock
from app.configured import admin_key, data_key_policy, key_provider, new_database, oauth_clients
from app.data_keys.keeper import unlocked
from app.db import Database
from app.drain import Drain
from app.ground import Ground, new_breakers, new_replica
from app.listener import Listener
from app.metrics import BUILD
from app.oauth.client import OAuthClients
from app.oauth.door import Door
from app.oauth.endpoints import TokenEndpoints
from app.oauth.load import load_catalogue
from app.outages import DatabaseUnavailable
from app.settings import Settings
from app.telemetry import configure_logging, logger
from app.vault.key_provider import KeyProvider
from app.wiring import build

__all__ = [
    "Settings",
    "admin_key",
    "create_app",
    "read_settings",
]  # what the command line uses

log = logger(__name__)

_LAST_FLUSH_SECONDS = 5.0

_DESCRIPTION = """
Backend services ask here for a user's fresh OAuth access token, instead of keeping any.

Every error is a problem (RFC 9457): decide by its `code`; its `detail` may be shown to an end user.
"""


def read_settings(**overrides: object) -> Settings:
    """The settings of this process, with logging set up by them. Raises ConfigurationError."""
    read = environment.read_settings(**overrides)
    configure_logging(log_format=read.log_format, level=read.log_level)
    for sentence in environment.unknown_settings():
        log.warning("settings.unknown", detail=sentence)
    return read


def create_app(read: Settings) -> FastAPI:
    """The application. It asks nothing of PostgreSQL before its lifespan begins."""
    catalogue = load_catalogue(
        more=read.providers_dir,
        allow_loopback=read.allow_loopback_upstreams,
        networks=read.reachable.networks,
    )
    clients = oauth_clients(read, catalogue)
    keys = key_provider(read)
    clock = DatabaseClock()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with running(read, clients, keys, clock) as services:
            app.state.services = services
            if isinstance(services.disclosures, AggregatedDisclosures):
                app.lane = Lane(services, services.disclosures)
                app.lane.start()
            app.load = Load(app)
            app.load.start()
            yield
            app.load.stop()
            if app.lane is not None:
                app.lane.stop()
                app.lane = None

    app = BrokerApp(
        title="Token broker",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own page, like its other one, fetches its script from the internet
        redoc_url=None,
        redirect_slashes=False,  # it would redirect to whatever host the request names
        routes=list(router.ROUTES),
    )
    problems.install(app)
    docs.install(app)
    app.add_middleware(Shortcut)
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)
    # the outermost: it answers for all that is inside
    app.add_middleware(RequestTelemetry, clock=clock, base_url=read.base_url)
    return app


@asynccontextmanager
async def running(
    read: Settings, clients: OAuthClients, keys: KeyProvider, clock: DatabaseClock
) -> AsyncIterator[Services]:
    """The services, from migration to drain. Raises ConfigurationError where keys and database do not fit."""
    async with AsyncExitStack() as stack:
        ground = await _laid(stack, read, clients, keys, clock)
        services = build(ground)
        await services.registrar.load()
        await _warn_of_too_many_rights(read, ground.db)
        _warn_of_short_lives(clients, interval_seconds=read.refresh_interval_seconds)
        await services.sharing.load()
        await services.pacer.load()
        stack.push_async_callback(services.authenticator.close)
        stack.push_async_callback(services.limiter.close)
        stack.push_async_callback(services.pacer.close)
        stack.push_async_callback(services.refresher.close)
        stack.push_async_callback(services.calendars.close)
        stack.push_async_callback(services.counting.close)
        if (key := admin_key(read)) is not None:
            await services.keys.install_admin_key(key)
        ground.listener.start()
        stack.push_async_callback(ground.listener.stop)
        followed = ground.data_keys.follow(ground.listener)
        for watch in (services.registrar.watch(), services.sharing.watch(), services.pacer.watch(), followed):
            stack.push_async_callback(_cancelled, asyncio.create_task(watch))
        await services.safekeeping.open()
        stack.push_async_callback(services.safekeeping.close)
        stack.push_async_callback(services.claims.close)
        services.timetable.start()
        stack.push_async_callback(_drain, services)
        log.info("started", version=__version__, replica=services.replica)
        yield services


async def _laid(
    stack: AsyncExitStack, read: Settings, clients: OAuthClients, keys: KeyProvider, clock: DatabaseClock
) -> Ground:
    """What everything stands on, migrated and unlocked; `stack` takes it away."""
    db = new_database(read)
    stack.push_async_callback(db.close)
    if read.migrate:
        await db.migrate()
    await db.set_clock(clock)
    vault, data_keys = await unlocked(db, keys, clock, policy=data_key_policy(read))
    assert read.database_url is not None
    listener = Listener(read.database_url, clock, direct_url=read.listen_database_url)
    breakers = new_breakers(read, clock)
    endpoints = TokenEndpoints(
        read.reachable, timeout_seconds=read.upstream_timeout_seconds, breakers=breakers
    )
    stack.push_async_callback(endpoints.close)
    api_door = Door(
        read.reachable,
        timeout_seconds=read.upstream_timeout_seconds,
        max_answer_bytes=MAX_API_ANSWER_BYTES,
        repeats=False,  # `ApiCaller` does, and counts
    )
    stack.push_async_callback(api_door.close)
    return Ground(
        read, db, vault, data_keys, listener, endpoints, api_door, breakers, clients, clock,
        Drain(clock, within=timedelta(seconds=read.drain_seconds)), replica=new_replica(),
    )  # fmt: skip


async def _drain(services: Services) -> None:
    """The refreshes under way end; nothing begins. The scheduler's own shutdown would cancel them."""
    services.drain.begin()
    still_running = await services.refresher.land()
    await services.due.land()
    still_sending = await services.sender.land()
    if still_running or still_sending:
        log.error("drain.incomplete", refreshes=still_running, deliveries=still_sending)
    services.timetable.stop()
    with suppress(DatabaseUnavailable, TimeoutError):  # nothing else depends on them
        async with asyncio.timeout(_LAST_FLUSH_SECONDS):
            await services.disclosures.close()
            await services.sealer.seal()
            await services.uses.flush()
            await services.authenticator.uses.flush()
    log.info("stopped", replica=services.replica)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _warn_of_too_many_rights(read: Settings, db: Database) -> None:
    if read.environment == "production" and await db.may_alter():
        log.warning(
            "settings.role_owns_tables",
            detail="whoever takes over this service could alter its tables and its audit trail; give the owner's "
            "URL to BROKER_MIGRATE_DATABASE_URL, and another role's to BROKER_DATABASE_URL",
        )


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


BUILD.labels(__version__).set(1)
