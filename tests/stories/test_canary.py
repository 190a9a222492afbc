"""Nothing that is secret is written anywhere: not into logs at DEBUG, problems or metrics, whatever happens."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, ENCRYPTION_KEYS, Replica, Replicas, bring
from tests.stories.test_connect import Browser

CLIENT_SECRET = "canary-client-secret-4711"
METADATA_SECRET = "srt_canary_in_a_wrong_field"
# What the sandbox issues, what keys look like, and what is put into requests by hand.
SECRETS = re.compile(
    r"s[ar]t_[A-Za-z0-9_-]{8,}|brk_[0-9a-f]{16}_[0-9a-f]{64}|sandbox-secret|canary-client-secret|canary-code"
)
FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "status", "status": 500},
    {"kind": "truncate", "after_processing": True},
    {"kind": "garbage", "after_processing": True},
    {"kind": "reset", "after_processing": True},
    {"kind": "wrong_type", "after_processing": True},
    {"kind": "no_access_token", "after_processing": True},
    {"kind": "redirect"},
)


@dataclass
class Written:
    """All that the service wrote for somebody who is not to see secrets, by where it was."""

    texts: list[tuple[str, str]] = field(default_factory=list)
    codes: set[str] = field(default_factory=set)

    def take(self, answer: httpx.Response) -> None:
        if answer.headers.get("content-type") == "application/problem+json":
            self.texts.append((f"problem of {answer.request.method} {answer.request.url.path}", answer.text))
            self.codes.add(answer.json()["code"])


async def test_no_secret_is_in_logs_problems_or_metrics(replicas: Replicas, sandbox: Sandbox) -> None:
    replica = replicas.start(log_level="DEBUG", retry_attempts="1", breaker_failures="100")
    written = Written()

    async def listen(answer: httpx.Response) -> None:
        await answer.aread()
        written.take(answer)

    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with httpx.AsyncClient(
        base_url=replica.url, headers=headers, event_hooks={"response": [listen]}, timeout=30
    ) as http:
        secrets = {*await _keys_and_clients(http), *await _connected(http, replica)}
        await _used_and_failing(http, sandbox)
        await _mistakes(http)
        written.texts.append(("metrics", (await http.get("/metrics")).text))
        written.texts.append(("health", (await http.get("/health-check")).text))
    replica.terminate()
    assert await asyncio.to_thread(replica.wait) == 0
    written.texts.append(("log", replica.log.read_text()))
    assert len(written.codes) >= 10, written.codes
    secrets |= {ENCRYPTION_KEYS.partition(":")[2], METADATA_SECRET}
    found = [
        (where, text[max(0, text.find(hit) - 80) : text.find(hit) + 20])
        for where, text in written.texts
        for hit in {*SECRETS.findall(text), *(secret for secret in secrets if secret in text)}
    ]
    assert found == []


async def _keys_and_clients(http: httpx.AsyncClient) -> set[str]:
    body = {"catalogue": "sandbox", "client_id": "sandbox", "client_secret": CLIENT_SECRET}
    assert (await http.put("/clients/canary", json=body)).status_code == 201
    await http.put("/clients/canary", json={**body, "settings": {"tenant": CLIENT_SECRET}})
    consumer = (await http.post("/consumers", json={"name": "canary", "scopes": ["tokens:read"]})).json()
    key = (await http.post(f"/consumers/{consumer['id']}/keys")).json()["key"]
    for wrong in (f"{key[:-1]}z", "canary-code", key):
        await http.put("/grants/sandbox/x", json={}, headers={"Authorization": f"Bearer {wrong}"})
    return {key.split("_")[2], CLIENT_SECRET}


async def _connected(http: httpx.AsyncClient, replica: Replica) -> set[str]:
    begun = (await http.post("/oauth/sandbox/authorize", json={"user_id": "ada", "login_hint": "ada"})).json()
    async with httpx.AsyncClient() as outside:
        browser = Browser(outside)
        callback = await browser.allow(await browser.leave(begun["authorization_url"]))
        assert (await outside.get(callback)).status_code == 200
        assert (await outside.get(callback)).status_code == 400
    code = httpx.URL(callback).params["code"]
    await http.get(f"/oauth/sandbox/callback?code=canary-code&state={begun['state']}x")
    await http.get(f"/connect/{begun['authorization_url'].rpartition('/')[2][:-4]}")
    return {code, begun["state"], begun["authorization_url"].rpartition("/")[2]}


async def _used_and_failing(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    assert (await http.get("/tokens/sandbox/ada")).status_code == 200
    assert (await http.post("/tokens/sandbox/ada/refresh", json={})).status_code == 200
    await http.post("/tokens/sandbox/ada/validate")
    for number, fault in enumerate(FAULTS):
        tokens = sandbox.grant(f"user-{number}")
        await http.put(f"/grants/sandbox/user-{number}", json=bring(tokens))
        sandbox.control(faults=[fault])
        assert (await http.get(f"/tokens/sandbox/user-{number}")).status_code in (502, 503), fault
        sandbox.control(clear_faults=True)
        await http.get(f"/tokens/sandbox/user-{number}?wait=0")
    dead = bring({**sandbox.grant("eve"), "refresh_token": "srt_canary_never_issued"})
    await http.put("/grants/sandbox/eve", json=dead)
    assert (await http.get("/tokens/sandbox/eve")).status_code == 409
    await http.put("/grants/sandbox/other", json=dead)
    await http.delete("/grants/sandbox/ada")


async def _mistakes(http: httpx.AsyncClient) -> None:
    wrong: tuple[dict[str, Any], ...] = (
        {"access_token": "sat_canary_in_a_body", "expires_in": "soon"},
        {"access_token": "sat_canary_in_a_body", "refresh_tokn": METADATA_SECRET},
        {"access_token": ["sat_canary_in_a_list"]},
        {"access_token": "sat_canary\n_with_a_break"},
    )
    for body in wrong:
        await http.put("/grants/sandbox/wrong", json=body)
    await http.put("/grants/sandbox/wrong", content=b'{"access_token": "sat_canary_not_json"')
    await http.get("/tokens/sandbox/nobody", params={"access_token": "sat_canary_in_a_query"})
    await http.get("/tokens/nowhere/nobody")
    await http.get("/srt_canary_in_a_path")
    await http.get("/audit", params={"cursor": "srt_canary_cursor"})
    await http.get("/tokens/sandbox/ada", headers={"X-API-Key": "brk_" + "0" * 16 + "_" + "0" * 64})
    await http.get("/tokens/sandbox/ada", params={"scope": "x" * 40_000})
