"""A broker whose providers `google` and `microsoft` lead to the sandbox for tokens, and to the fakes for calendars."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.sandbox.server import Sandbox
from app.settings import Settings
from tests.broker import Broker, bring, settings_for
from tests.calendars.provider import calendars_of, write_provider
from tests.calendars.server import CalendarServer


@pytest.fixture
async def upstreams(sandbox: Sandbox) -> AsyncIterator[CalendarServer]:
    """Both fakes, empty."""
    async with calendars_of(sandbox) as server:
        yield server


@pytest.fixture
def providers_dir(providers_dir: Path, sandbox: Sandbox, upstreams: CalendarServer) -> Path:
    write_provider(providers_dir, "google", sandbox, url=upstreams.google_url)
    write_provider(providers_dir, "microsoft", sandbox, url=upstreams.graph_url, api="microsoft")
    return providers_dir


@pytest.fixture
def settings(database_url: str, providers_dir: Path, tmp_path: Path) -> Settings:
    client = {"client_id": "sandbox", "client_secret": "sandbox-secret"}
    clients = {name: client for name in ("google", "microsoft", "sandbox")}
    return settings_for(database_url, providers_dir, data_dir=tmp_path / "var", clients=clients)


@pytest.fixture
async def broker(settings: Settings) -> AsyncIterator[Broker]:
    async with Broker.running(settings) as running:
        yield running


async def connect(
    broker: Broker, sandbox: Sandbox, path: str = "google/ada", *, expires_in: int = 300
) -> str:
    """Imports a grant of that user; its id. With `expires_in` -1 its access token has expired."""
    user = path.partition("/")[2]
    brought = await broker.put(path, bring(sandbox.grant(user), expires_in=expires_in))
    return str(brought["id"])
