"""A broker whose provider `acme` has its tokens from the sandbox and its API behind a socket of the test's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.sandbox.server import Sandbox
from app.settings import Settings
from tests.broker import Broker, Replica, Replicas, bring, settings_for
from tests.calendars.provider import Living
from tests.gateway.upstream import Upstream

_ENTRY = """
name: {name}
display_name: Acme
authorization_url: {sandbox}/authorize
token_url: {sandbox}/token
scopes: {{default: [basic]}}
access_token: {{lifetime_seconds: 300}}
refresh_token: {{rotation: strict}}
{api}
"""
CLIENT = {"client_id": "sandbox", "client_secret": "sandbox-secret"}


@pytest.fixture
async def upstream(sandbox: Sandbox) -> AsyncIterator[Upstream]:
    async with Upstream.running() as running:
        running.tokens = Living(sandbox)
        yield running


@pytest.fixture
def providers_dir(providers_dir: Path, sandbox: Sandbox, upstream: Upstream) -> Path:
    write_acme(
        providers_dir, sandbox, f'api: {{base_url: "{upstream.url}", headers: {{Accept: text/x-acme}}}}'
    )
    write_acme(providers_dir, sandbox, "", name="bare")
    return providers_dir


@pytest.fixture
def settings(database_url: str, providers_dir: Path, tmp_path: Path) -> Settings:
    return settings_for(
        database_url,
        providers_dir,
        data_dir=tmp_path / "var",
        clients={"acme": CLIENT, "bare": CLIENT},
        breaker_failures=1000,
        proxy_max_bytes=128 * 1024,
    )


@pytest.fixture
async def broker(settings: Settings) -> AsyncIterator[Broker]:
    async with Broker.running(settings) as running:
        yield running


@pytest.fixture
async def connected(broker: Broker, sandbox: Sandbox) -> Broker:
    """With a grant of `acme/ada` whose token is good."""
    await connect(broker, sandbox)
    return broker


async def connect(broker: Broker, sandbox: Sandbox, path: str = "acme/ada", **more: int) -> str:
    """Imports a grant of that user; its id."""
    granted = sandbox.grant(path.partition("/")[2])
    return str((await broker.put(path, bring(granted, **{"expires_in": 300, **more})))["id"])


@pytest.fixture
def replicas(database_url: str, providers_dir: Path, tmp_path: Path) -> Iterator[Replicas]:
    started = Replicas(database_url, providers_dir, tmp_path)
    yield started
    started.stop()


def served(replicas: Replicas, **settings: str) -> Replica:
    """A broker as a process of its own."""
    registered = {"clients__acme__client_id": "sandbox", "clients__acme__client_secret": "sandbox-secret"}
    return replicas.start(environment=None, by=(), **registered, **settings)


def write_acme(folder: Path, sandbox: Sandbox, api: str, *, name: str = "acme") -> None:
    (folder / f"{name}.yaml").write_text(_ENTRY.format(name=name, sandbox=sandbox.url, api=api))
