"""A broker whose gateway keeps answers of `Answering`, with a grant of ada's and one of bob's. To be imported by tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.settings import Settings
from tests.broker import Broker, heard, settings_for
from tests.gateway.answering import Answering
from tests.gateway.calling import PROVIDER, connect

RESOURCES = {"/portfolio": 180, "/portfolio/live": 0, "/orders": 60}


@pytest.fixture
async def api() -> AsyncIterator[Answering]:
    async with Answering.running() as running:
        yield running


@pytest.fixture
def settings(database_url: str, tmp_path: Path, api: Answering) -> Settings:
    folder = tmp_path / "providers"
    folder.mkdir()
    (folder / "answering.yaml").write_text(api.entry)
    client = {"client_id": "us", "client_secret": "a-secret", "resources": RESOURCES}
    return settings_for(database_url, folder, data_dir=tmp_path / "var", clients={PROVIDER: client})


@pytest.fixture
async def broker(settings: Settings) -> AsyncIterator[Broker]:
    async with Broker.running(settings) as running:
        await connect(running, "ada")
        await connect(running, "bob")
        yield running


@pytest.fixture
async def twin(settings: Settings, broker: Broker) -> AsyncIterator[Broker]:
    async with Broker.running(settings) as running:
        await heard(running)
        await heard(broker)
        yield running


async def outdate(broker: Broker) -> None:
    """Makes all that is kept too old, but for being asked about."""
    answers = broker.services.answers
    for each in list(answers._cache._kept.values()):
        object.__setattr__(each, "asked_at", each.asked_at - each.seconds)
