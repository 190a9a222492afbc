"""POST /tokens/.../validate: the provider is asked, and nothing is refreshed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.sandbox.server import Sandbox
from tests.broker import Broker, bring, settings_for


async def _validate(broker: Broker, path: str) -> tuple[Any, str]:
    answer = await broker.http.post(f"/tokens/{path}/validate")
    assert answer.status_code == 200, answer.text
    assert answer.json()["checked_at"].endswith("Z")
    return answer.json()["valid"], answer.json()["checked_by"]


@pytest.fixture
def providers_dir(providers_dir: Path, sandbox: Sandbox) -> Path:
    """With a provider that has userinfo only, and one that cannot be asked at all."""
    for name, extra in (("tells", f"userinfo_url: {sandbox.url}/userinfo"), ("mute", "")):
        text = f"name: {name}\ntoken_url: {sandbox.url}/token\n{extra}\n"
        (providers_dir / f"{name}.yaml").write_text(text)
    return providers_dir


@pytest.fixture
async def broker(database_url: str, providers_dir: Path, tmp_path: Path) -> Any:
    secret = {"client_id": "sandbox", "client_secret": "sandbox-secret"}
    clients = {name: secret for name in ("sandbox", "tells", "mute")}
    settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var", clients=clients)
    async with Broker.running(settings) as running:
        yield running


async def test_introspection_tells_a_token_that_was_withdrawn(broker: Broker, sandbox: Sandbox) -> None:
    brought = await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    assert await _validate(broker, "sandbox/ada") == (True, "introspection")
    sandbox.revoke("ada")
    assert await _validate(broker, "sandbox/ada") == (False, "introspection")
    grant = (await broker.http.get(f"/grants/{brought['id']}")).json()
    assert (grant["last_validated_at"] is not None, grant["generation"], grant["status"]) == (
        True,
        1,
        "active",
    )


async def test_userinfo_is_asked_where_there_is_no_introspection(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("tells/ada", bring(sandbox.grant("ada"), expires_in=3600))
    assert await _validate(broker, "tells/ada") == (True, "userinfo")
    sandbox.revoke("ada")
    assert await _validate(broker, "tells/ada") == (False, "userinfo")


async def test_the_expiry_tells_where_nobody_can_be_asked(broker: Broker) -> None:
    await broker.put("mute/ada", {"access_token": "at", "expires_in": 3600})
    await broker.put("mute/bob", bring({"access_token": "at"}))
    assert await _validate(broker, "mute/ada") == (True, "expiry")
    assert await _validate(broker, "mute/bob") == (False, "expiry")


@pytest.mark.parametrize(
    "fault",
    [{"kind": "status", "status": 503}, {"kind": "drop"}, {"kind": "garbage"}],
    ids=lambda f: f["kind"],
)
async def test_a_provider_that_does_not_tell_is_no_verdict(
    broker: Broker, sandbox: Sandbox, fault: dict[str, Any]
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    sandbox.control(faults=[{**fault, "endpoint": "introspect", "times": -1}])
    assert await _validate(broker, "sandbox/ada") == (None, "introspection")


async def test_an_absent_grant_is_not_found(broker: Broker) -> None:
    answer = await broker.http.post("/tokens/sandbox/nobody/validate")
    assert (answer.status_code, answer.json()["code"]) == (404, "grant_not_found")
