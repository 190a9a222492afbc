"""More than can be done: what costs most is told to come back, at once; what can be answered from memory still is."""

from __future__ import annotations

import asyncio
import time

import pytest

from app.api import load
from app.api.lane import BrokerApp
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring


@pytest.fixture
async def late(broker: Broker, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop is late, and has been for a while; a token is in memory."""
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    await asyncio.sleep(0.1)  # what was announced of it has come back
    await broker.token("sandbox/ada")
    monkeypatch.setattr(load, "_LATE_SECONDS", -1.0)
    await asyncio.sleep(0.5)


@pytest.mark.usefixtures("late")
async def test_what_cannot_be_answered_from_memory_is_told_to_come_back(broker: Broker) -> None:
    answers = [await broker.http.get("/grants") for _ in range(2)]
    for answer in answers:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "overloaded"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert answers[0].headers["x-request-id"] != answers[1].headers["x-request-id"]


@pytest.mark.usefixtures("late")
async def test_tokens_in_memory_are_answered_and_so_is_who_looks_how_it_is(broker: Broker) -> None:
    for path in ("/tokens/sandbox/ada", "/health-check", "/metrics"):
        assert (await broker.http.get(path)).status_code == 200, path
    assert "broker_requests_shed_total" in (await broker.http.get("/metrics")).text


@pytest.mark.usefixtures("late")
async def test_when_it_is_over_everything_is_answered_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await broker.http.get("/grants")).status_code == 503
    monkeypatch.setattr(load, "_LATE_SECONDS", 60.0)
    await asyncio.sleep(0.3)
    assert (await broker.http.get("/grants")).status_code == 200


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
