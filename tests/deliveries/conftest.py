"""A broker whose provider `records` leads to the sandbox for tokens and to a fake API that takes records."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.deliveries.category import Pause
from app.sandbox.server import Sandbox
from app.settings import Settings
from app.vault.vault import Vault
from tests.broker import Broker, bring, settings_for
from tests.deliveries import rows
from tests.deliveries.upstream import RecordsApi

_ENTRY = """
name: {name}
authorization_url: {sandbox}/authorize
token_url: {sandbox}/token
scopes: {{default: [basic]}}
access_token: {{lifetime_seconds: 300}}
refresh_token: {{rotation: strict}}
api: {{base_url: "{url}"}}
"""
CLIENT = {"client_id": "sandbox", "client_secret": "sandbox-secret"}


def write_provider(folder: Path, name: str, sandbox: Sandbox, *, url: str) -> None:
    """A catalogue file of a provider whose API is at `url`."""
    (folder / f"{name}.yaml").write_text(_ENTRY.format(name=name, sandbox=sandbox.url, url=url))


@pytest.fixture
async def api(sandbox: Sandbox) -> AsyncIterator[RecordsApi]:
    async with RecordsApi.running() as running:
        running.takes = sandbox.accepts
        yield running


@pytest.fixture
def providers_dir(providers_dir: Path, sandbox: Sandbox, api: RecordsApi) -> Path:
    write_provider(providers_dir, "records", sandbox, url=api.url)
    write_provider(providers_dir, "other", sandbox, url=api.url.replace("/v1", "/other"))
    return providers_dir


@pytest.fixture
def settings(database_url: str, providers_dir: Path, tmp_path: Path) -> Settings:
    clients = {name: CLIENT for name in ("records", "other", "sandbox")}
    return settings_for(
        database_url, providers_dir, data_dir=tmp_path / "var", clients=clients, delivery_stuck_seconds=8
    )


@pytest.fixture
def no_short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are drawn from nothing upwards: what is tried again would be so within the same round, now and then."""
    drawn = Pause.drawn
    monkeypatch.setattr(Pause, "drawn", lambda self, attempts: max(60.0, drawn(self, attempts)))


@pytest.fixture
async def broker(settings: Settings, sandbox: Sandbox, no_short_pauses: None) -> AsyncIterator[Broker]:
    """With a grant of ada's at each; its timetable sends nothing of itself."""
    async with Broker.running(settings) as running:
        for name in ("send_deliveries", "release_deliveries"):
            running.services.timetable._scheduler.remove_job(name)
        for provider in ("records", "other"):
            await running.put(f"{provider}/ada", bring(sandbox.grant("ada"), expires_in=300))
        yield running


@pytest.fixture
def vault(broker: Broker) -> Vault:
    return broker.services.vault


Put = Callable[..., Awaitable[UUID]]


@pytest.fixture
def put(database_url: str, vault: Vault) -> Put:
    async def one(**wanted: Any) -> UUID:
        return await rows.put_one(database_url, vault, **wanted)

    return one


@pytest.fixture
def put_batch(database_url: str, vault: Vault) -> Put:
    async def batch(records: list[Any], **wanted: Any) -> UUID:
        return await rows.put_batch(database_url, vault, records, **wanted)

    return batch
