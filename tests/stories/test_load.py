"""More than can be done: what costs most is told to come back, at once; what can be answered from memory still is."""

from __future__ import annotations

import asyncio
import time

import pytest

from app.api import load
from app.api.lane import BrokerApp
from app.consumers import authenticate
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring


@pytest.fixture
async def late(broker: Broker, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The event loop is late, and has been for a while; a token is in memory. The header with a consumer's key."""
    monkeypatch.setattr(authenticate, "_CACHE_SECONDS", 60.0)
    consumer = (await broker.http.post("/consumers", json={"name": "crm", "scopes": ["tokens:read"]})).json()[
        "id"
    ]
    key = (await broker.http.post(f"/consumers/{consumer}/keys")).json()["key"]
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    await asyncio.sleep(0.1)  # what was announced of it has come back
    header = {"Authorization": f"Bearer {key}"}
    for headers in (header, {}):
        assert (await broker.http.get("/tokens/sandbox/ada", headers=headers)).status_code == 200
    monkeypatch.setattr(load, "_LATE_SECONDS", -1.0)
    await asyncio.sleep(0.5)
    return header


async def test_what_cannot_be_answered_from_memory_is_told_to_come_back(
    broker: Broker, late: dict[str, str]
) -> None:
    answers = [await broker.http.get("/tokens/sandbox/bob", headers=late) for _ in range(2)]
    for answer in answers:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "overloaded"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert answers[0].headers["x-request-id"] != answers[1].headers["x-request-id"]
    named = await broker.http.get("/tokens/sandbox/bob", headers={**late, "X-Request-ID": "mine"})
    assert named.headers["x-request-id"] == named.json()["request_id"] == "mine"


@pytest.mark.usefixtures("late")
async def test_an_administrator_is_served_and_so_is_a_user_on_the_way_back(broker: Broker) -> None:
    assert (await broker.http.get("/consumers")).status_code == 200
    assert (
        await broker.http.get("/oauth/sandbox/callback", headers={"Authorization": ""})
    ).status_code != 503


async def test_tokens_in_memory_are_answered_and_so_is_who_looks_how_it_is(
    broker: Broker, late: dict[str, str]
) -> None:
    for path in ("/tokens/sandbox/ada", "/health-check", "/metrics"):
        assert (await broker.http.get(path, headers=late)).status_code == 200, path
    assert "broker_requests_shed_total" in (await broker.http.get("/metrics")).text


async def test_when_it_is_over_everything_is_answered_again(
    broker: Broker, late: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await broker.http.get("/tokens/sandbox/bob", headers=late)).status_code == 503
    monkeypatch.setattr(load, "_LATE_SECONDS", 60.0)
    await asyncio.sleep(0.3)
    assert (await broker.http.get("/tokens/sandbox/bob", headers=late)).status_code == 404


async def test_one_long_turn_is_no_overload(broker: Broker) -> None:
    assert isinstance(broker.app, BrokerApp) and broker.app.load is not None
    time.sleep(0.9)  # noqa: ASYNC251
    await asyncio.sleep(0)
    assert not broker.app.load.refuses({"path": "/grants"})


async def test_a_loop_that_stays_late_is_overloaded(broker: Broker) -> None:
    assert isinstance(broker.app, BrokerApp) and broker.app.load is not None
    refused = []
    for _ in range(6):
        time.sleep(0.7)  # noqa: ASYNC251
        await asyncio.sleep(0)
        refused.append(broker.app.load.refuses({"path": "/grants"}))
    assert refused[-1]
    assert not refused[0]
