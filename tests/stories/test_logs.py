"""What the log tells: one line a request and a try of a refresh, and security events apart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, Replica, Replicas, bring

Line = dict[str, Any]


@pytest.fixture
def replica(replicas: Replicas) -> Replica:
    return replicas.start()


@pytest.fixture
async def http(replica: Replica) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with httpx.AsyncClient(base_url=replica.url, headers=headers, timeout=30) as client:
        yield client


async def lines_of(replica: Replica) -> list[Line]:
    """What it has logged, once it has ended."""
    replica.terminate()
    assert await asyncio.to_thread(replica.wait) == 0
    return [json.loads(line) for line in replica.log.read_text().splitlines()]


def named(lines: list[Line], event: str, request_id: str) -> list[Line]:
    return [line for line in lines if line["event"] == event and line.get("request_id") == request_id]


async def key_for(http: httpx.AsyncClient, **rights: Any) -> str:
    made = await http.post("/consumers", json={"name": "reports", "scopes": ["tokens:read"], **rights})
    return str((await http.post(f"/consumers/{made.json()['id']}/keys")).json()["key"])


async def test_a_request_and_its_refresh_are_one_line_each_and_belong_together(
    replica: Replica, http: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    key = await key_for(http)
    grant = (await http.put("/grants/sandbox/ada", json=bring(sandbox.grant("ada")))).json()
    caller = {"Authorization": f"Bearer {key}", "X-Request-ID": "first"}
    assert (await http.get("/api/v1/tokens/sandbox/ada", headers=caller)).status_code == 200
    lines = await lines_of(replica)
    [request] = named(lines, "request", "first")
    assert request["route"] == "/api/v1/tokens/{provider}/{user_id}"
    assert (request["method"], request["status"], request["outcome"]) == ("GET", 200, "ok")
    assert (request["consumer"], request["provider"]) == ("reports", "sandbox")
    assert (request["grant_id"], request["generation"]) == (grant["id"], 2)
    [refresh] = named(lines, "refresh", "first")
    assert (refresh["consumer"], refresh["provider"]) == ("reports", "sandbox")
    assert (refresh["grant_id"], refresh["outcome"], refresh["trigger"]) == (
        grant["id"],
        "refreshed",
        "request",
    )
    assert request["milliseconds"] >= refresh["milliseconds"] >= 0
    for line in lines:
        assert {"event", "level", "logger", "at"} <= line.keys()


async def test_a_failed_request_tells_the_code_of_its_problem(
    replica: Replica, http: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    dead = bring({**sandbox.grant("eve"), "refresh_token": "srt_never_issued"})
    grant = (await http.put("/grants/sandbox/eve", json=dead)).json()
    await http.get("/tokens/sandbox/eve", headers={"X-Request-ID": "dead"})
    await http.get("/tokens/nowhere/eve", headers={"X-Request-ID": "unknown"})
    items = [{"provider": "sandbox", "user_id": user} for user in ("eve", "nobody")]
    await http.post("/tokens/batch", json={"items": items}, headers={"X-Request-ID": "batch"})
    lines = await lines_of(replica)
    [request] = named(lines, "request", "dead")
    assert (request["status"], request["outcome"], request["grant_id"]) == (
        409,
        "reconnect_required",
        grant["id"],
    )
    assert named(lines, "request", "unknown")[0]["outcome"] == "unknown_provider"
    [batch] = named(lines, "request", "batch")
    assert (batch["outcome"], batch["items"], batch["failed"]) == ("ok", 2, 2)


async def test_security_events_have_a_logger_and_a_count_of_their_own(
    replica: Replica, http: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    await http.put("/grants/sandbox/ada", json=bring(sandbox.grant("ada"), expires_in=3600))
    key = await key_for(http, users=["acme-*"])
    reports = {"Authorization": f"Bearer {key}"}
    wrong = {"Authorization": f"Bearer {key[:-64]}{'0' * 64}"}
    assert (await http.get("/tokens/sandbox/ada", headers=wrong)).status_code == 401
    assert (await http.get("/tokens/sandbox/ada", headers=reports)).status_code == 404
    assert (await http.get("/audit", headers=reports)).status_code == 403
    assert (await http.get("/oauth/sandbox/callback?state=made-up&code=x")).status_code == 400
    counted = (await http.get("/metrics")).text
    lines = [line for line in await lines_of(replica) if line["logger"] == "security"]
    assert [line["event"] for line in lines] == [
        "authentication_failed",
        "foreign_grant",
        "forbidden",
        "callback_refused",
    ]
    assert lines[0]["address"] == "127.0.0.1"
    assert lines[0]["key_id"] == key.split("_")[1]
    assert [line.get("consumer") for line in lines] == [None, "reports", "reports", None]
    for line in lines:
        assert f'broker_security_events_total{{event="{line["event"]}"}} 1.0' in counted
        assert line["request_id"]
