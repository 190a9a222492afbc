"""The real broker against a real authorization server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.broker import Replicas, free_port, write_providers
from tests.e2e import calendar_world, node
from tests.e2e.authorization_server import AuthorizationServer
from tests.e2e.brokers import Brokers
from tests.postgres import as_owner


@pytest.fixture(scope="session")
def node_with_packages() -> Path:
    return node.installed()


@pytest.fixture
def public_url() -> str:
    """Known before anything runs: the provider has to know it too."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture(scope="session")
def myworld_commands() -> Path:
    return calendar_world.installed()


@pytest.fixture
def myworld() -> str | None:
    """Where the calendars are; tests that need some have a host of their own."""
    return None


@pytest.fixture
def op(
    node_with_packages: Path, public_url: str, tmp_path: Path, myworld: str | None
) -> Iterator[AuthorizationServer]:
    """The authorization server, `OP` in OpenID Connect's words."""
    callback = f"{public_url}/api/v1/oauth/oidc/callback"
    with AuthorizationServer.running(
        node_with_packages, redirect_uri=callback, log=tmp_path / "op.log", myworld=myworld
    ) as running:
        yield running


@pytest.fixture
def providers_dir(tmp_path: Path, op: AuthorizationServer) -> Path:
    """With the entries that every replica is registered for; none of them is used here."""
    return write_providers(tmp_path / "providers", op.url)


@pytest.fixture
def brokers(
    op: AuthorizationServer, replicas: Replicas, providers_dir: Path, public_url: str
) -> Iterator[Brokers]:
    started = Brokers(op, replicas, providers_dir, public_url)
    yield started
    started.close()


class Expiry:
    """Of all tokens that are stored. It looks at the rows, since asking for a token would change them."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection

    async def passed(self, *, seconds: float = 10) -> None:
        """Returns once it is over."""
        query = "SELECT bool_and(expires_at <= clock_timestamp()) FROM grants"
        async with asyncio.timeout(seconds):
            while not await self._connection.fetchval(query):
                await asyncio.sleep(0.02)

    async def bring_forward(self) -> None:
        """To this moment, as far as the broker knows."""
        await self._connection.execute("UPDATE grants SET expires_at = clock_timestamp()")


@pytest.fixture
async def expiry(database_url: str) -> AsyncIterator[Expiry]:
    connection = await asyncpg.connect(as_owner(database_url))
    yield Expiry(connection)
    await connection.close()
