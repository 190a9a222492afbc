"""What a refresh makes of scopes and lifetimes: narrower, missing, and the end of refresh tokens foretold."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from app.sandbox.server import Sandbox
from tests.broker import Broker, bring, settings_for, write_providers

_PREDICTIONS = {"idle": "idle_lifetime_seconds: 1000", "fixed": "absolute_lifetime_seconds: 1000"}


async def test_a_scope_that_a_refresh_narrowed_is_the_scope_from_then_on(
    broker: Broker, sandbox: Sandbox
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")), scope="read write")
    sandbox.control(settings={"scope": "read"})
    assert (await broker.token("sandbox/ada"))["scope"] == "read"
    refused = await broker.http.get("/tokens/sandbox/ada", params={"scope": "write"})
    assert (refused.status_code, refused.json()["code"]) == (409, "insufficient_scope")


async def test_a_scope_that_a_refresh_does_not_mention_stays(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")), scope="read write")
    sandbox.control(settings={"scope": "omit"})
    assert (await broker.token("sandbox/ada"))["scope"] == "read write"


@pytest.mark.parametrize("expires_in", ["omit", "zero", "string"])
async def test_a_lifetime_that_is_missing_is_the_catalogues(
    broker: Broker, sandbox: Sandbox, expires_in: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(settings={"expires_in": expires_in})
    assert 290 < (await broker.token("sandbox/ada"))["expires_in"] <= 300


@pytest.mark.parametrize("kind", _PREDICTIONS)
async def test_the_death_of_a_refresh_token_is_predicted(
    database_url: str, tmp_path: Path, sandbox: Sandbox, kind: str
) -> None:
    """An idle lifetime begins anew with each refresh; an absolute one does not."""
    folder = write_providers(tmp_path / "providers", sandbox.url)
    entry = folder / "keeps.yaml"
    entry.write_text(entry.read_text().replace("rotation: never", f"rotation: never, {_PREDICTIONS[kind]}"))
    settings = settings_for(database_url, folder, data_dir=tmp_path / "var")
    async with Broker.running(settings) as broker:
        grant = await broker.put("keeps/ada", bring(sandbox.grant("ada")))
        before = datetime.fromisoformat(grant["predicted_death_at"])
        assert timedelta(seconds=990) < before - broker.services.clock.now() <= timedelta(seconds=1000)
        await broker.token("keeps/ada")
        after = (await broker.http.get(f"/grants/{grant['id']}")).json()["predicted_death_at"]
        assert (datetime.fromisoformat(after) > before) == (kind == "idle")
