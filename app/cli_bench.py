"""`broker bench`: a database as large as one likes, to measure with."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli_database import clock_of, with_db_and_settings
from app.clients.registrar import Registrar
from app.clock import Clock
from app.configured import data_key_policy, key_provider, oauth_clients
from app.data_keys.keeper import unlocked
from app.db import Database
from app.errors import ConfigurationError, UnknownProvider
from app.grants.seeding import Seeder
from app.listener import Listener
from app.main import Settings, read_settings
from app.oauth.client import OAuthClient
from app.oauth.load import load_catalogue
from app.vault.vault import Vault

bench = typer.Typer(help="To measure with. Not in production.", no_args_is_help=True)

_SAY_EVERY_SECONDS = 2.0


@bench.callback()
def measure() -> None:
    """To measure with. Not in production."""


@bench.command("seed")
def seed(
    grants: Annotated[int, typer.Option(min=1, help="How many more.")],
    provider: Annotated[str, typer.Option(help="Whose grants they are.")] = "google",
    users: Annotated[str, typer.Option(help="Users are called so, and a number from 1 on.")] = "user-",
    due: Annotated[
        float, typer.Option(min=0, max=1, help="The share of them that is due to be refreshed.")
    ] = 0.0,
) -> None:
    """Writes grants whose tokens open, and which no provider knows. When they come due is spread evenly over an hour less
    the refresh margin. Repeated, it goes on behind the last."""
    read = read_settings()
    if read.environment == "production":
        raise ConfigurationError(
            ["BROKER_ENVIRONMENT: is production, where no grants are made up; set it to development"]
        )

    async def seeded(db: Database, read: Settings) -> None:
        await db.migrate()
        clock = await clock_of(db)
        vault, data_keys = await unlocked(db, key_provider(read), clock, policy=data_key_policy(read))
        client = await _client(read, db, vault, clock, provider)
        began = said = clock.monotonic()
        async for done in Seeder(db, vault, clock, margin=read.margin).seed(
            client, count=grants, users=users, due=due
        ):
            now = clock.monotonic()
            if done == grants or now - said >= _SAY_EVERY_SECONDS:
                said = now
                print(f"{done:,} of {grants:,} grants, {done / (now - began):,.0f} a second", flush=True)
        await data_keys.tend()  # counts what was sealed

    with_db_and_settings(seeded, read)


async def _client(read: Settings, db: Database, vault: Vault, clock: Clock, name: str) -> OAuthClient:
    """The registration of that name, of the catalogue, the settings or the API. Raises ConfigurationError."""
    catalogue = load_catalogue(
        more=read.providers_dir,
        allow_loopback=read.allow_loopback_upstreams,
        networks=read.reachable.networks,
    )
    clients = oauth_clients(read, catalogue)
    listener = Listener(read.database_url or "", clock, direct_url=read.listen_database_url)  # not started
    await Registrar(db, vault, clients, listener, clock).load()
    try:
        return clients.get(name)
    except UnknownProvider as error:
        raise ConfigurationError([f"--provider {name}: {error.detail}"]) from error
