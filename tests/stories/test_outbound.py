"""A provider whose name leads inside: what callers, operators and the other grants notice of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from app.breaker import BreakerState
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring, settings_for
from tests.unit.test_outbound import Names

CLIENT = {"client_id": "sandbox", "client_secret": "sandbox-secret"}


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Of which `inside.example` leads to the metadata service of a cloud."""
    names = Names(inside_example=[["169.254.169.254"]])
    monkeypatch.setattr(aiohttp, "DefaultResolver", lambda: names)
    return names


@pytest.fixture
async def broker(
    names: Names, database_url: str, providers_dir: Path, tmp_path: Path
) -> AsyncIterator[Broker]:
    (providers_dir / "inside.yaml").write_text("name: inside\ntoken_url: https://inside.example/token\n")
    (providers_dir / "hosted.yaml").write_text(
        "name: hosted\ntoken_url: https://{host}/token\nvariables: {host: {pattern: '[a-z0-9.]+'}}\n"
    )
    settings = settings_for(
        database_url, providers_dir, data_dir=tmp_path / "var", clients={"inside": CLIENT, "sandbox": CLIENT}
    )
    async with Broker.running(settings) as running:
        yield running


async def test_the_grant_is_kept_and_the_breaker_stays_closed(
    broker: Broker, sandbox: Sandbox, names: Names
) -> None:
    await broker.put("inside/ada", bring(sandbox.grant("ada")))
    for _ in range(4):
        answer = await broker.http.get("/tokens/inside/ada")
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (503, "provider_unavailable")
        assert (problem["provider_code"], problem["category"]) == ("address_refused", "permanent")
        assert answer.headers["retry-after"] == "60"
        assert "169.254" not in answer.text and "inside.example" not in answer.text
    assert len(names.asked) == 4  # once each: trying again at once would be in vain
    breaker = broker.services.breakers.of(broker.services.clients.get("inside").token_breaker)
    assert (breaker.state, breaker.failures) == (BreakerState.CLOSED, 0)
    [grant] = (await broker.http.get("/grants", params={"provider": "inside"})).json()["items"]
    assert (grant["status"], grant["generation"]) == ("active", 1)


async def test_others_notice_nothing(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("inside/ada", bring(sandbox.grant("ada")))
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    await broker.http.get("/tokens/inside/ada")
    assert (await broker.token("sandbox/ada"))["generation"] == 2


async def test_once_the_name_leads_elsewhere_it_is_asked_again(
    broker: Broker, sandbox: Sandbox, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to close anything, and nothing bad was remembered."""
    await broker.put("inside/ada", bring(sandbox.grant("ada")))
    await broker.http.get("/tokens/inside/ada")
    names.answers["inside.example"] = [["127.0.0.1"]]
    problem = (await broker.http.get("/tokens/inside/ada")).json()
    assert problem["provider_code"] == "ClientConnectorError"  # nobody listens there, but it was tried


async def test_a_setting_that_would_lead_to_an_address_is_refused_by_name(broker: Broker) -> None:
    for value in ("127.0.0.1", "169.254.169.254", "2130706433", "0x7f000001", "localhost", "1.2.3.4", "8"):
        body = {"catalogue": "hosted", **CLIENT, "settings": {"host": value}}
        answer = await broker.http.put("/clients/hosted", json=body)
        assert (answer.status_code, [each["field"] for each in answer.json()["errors"]]) == (
            422,
            ["body.settings"],
        )
