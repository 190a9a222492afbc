"""POST /consumers and their keys."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from app.sandbox.server import Sandbox
from tests.broker import Broker, bring


async def _create(broker: Broker, **body: Any) -> dict[str, Any]:
    answer = await broker.http.post("/consumers", json={"name": "reports", "scopes": ["tokens:read"], **body})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def _key(broker: Broker, consumer: dict[str, Any], **body: Any) -> dict[str, str]:
    answer = await broker.http.post(f"/consumers/{consumer['id']}/keys", json=body)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    found: dict[str, str] = answer.json()
    return found


async def _status(broker: Broker, key: str, path: str = "/tokens/sandbox/acme-1") -> int:
    answer = await broker.http.get(path, headers={"Authorization": f"Bearer {key}"})
    return answer.status_code


async def test_a_new_consumers_key_does_what_it_may_and_no_more(broker: Broker, sandbox: Sandbox) -> None:
    for user in ("acme-1", "zeta"):
        await broker.put(f"sandbox/{user}", bring(sandbox.grant(user), expires_in=3600))
    consumer = await _create(broker, users=["acme-*"], providers=["sandbox"])
    key = await _key(broker, consumer)
    assert key["key"].startswith(f"brk_{key['id']}_")
    assert await _status(broker, key["key"]) == 200
    assert await _status(broker, key["key"], "/tokens/sandbox/zeta") == 404
    assert await _status(broker, key["key"], "/grants") == 403


async def test_two_keys_overlap_and_one_can_be_revoked(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("sandbox/acme-1", bring(sandbox.grant("acme-1"), expires_in=3600))
    consumer = await _create(broker)
    old, new = await _key(broker, consumer), await _key(broker, consumer, expires_at="2100-01-01T00:00:00Z")
    assert [await _status(broker, key["key"]) for key in (old, new)] == [200, 200]
    revoked = await broker.http.delete(f"/consumers/{consumer['id']}/keys/{old['id']}")
    async with asyncio.timeout(2):
        while await _status(broker, old["key"]) != 401:
            await asyncio.sleep(0.05)
    assert (revoked.status_code, await _status(broker, new["key"])) == (204, 200)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scopes": ["root"]}, "body.scopes.0"),
        ({"scopes": []}, "body.scopes"),
        ({"name": ""}, "body.name"),
        ({"colour": "red"}, "body.colour"),
    ],
)
async def test_a_wrong_consumer_is_refused_by_field(broker: Broker, body: dict[str, Any], field: str) -> None:
    answer = await broker.http.post("/consumers", json={"name": "reports", "scopes": ["tokens:read"], **body})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


async def test_what_is_not_there_is_not_found_and_what_is_taken_is_a_conflict(broker: Broker) -> None:
    consumer = await _create(broker)
    absent = "00000000-0000-7000-8000-000000000000"
    answers: list[httpx.Response] = [
        await broker.http.post("/consumers", json={"name": "reports", "scopes": ["tokens:read"]}),
        await broker.http.post(f"/consumers/{absent}/keys"),
        await broker.http.delete(f"/consumers/{consumer['id']}/keys/0123456789abcdef"),
    ]
    assert [answer.json()["code"] for answer in answers] == ["conflict", "not_found", "not_found"]


async def test_only_an_admin_makes_consumers(broker: Broker) -> None:
    key = await _key(broker, await _create(broker, scopes=["grants:write", "tokens:read"]))
    answer = await broker.http.post(
        "/consumers",
        json={"name": "mine", "scopes": ["admin"]},
        headers={"Authorization": f"Bearer {key['key']}"},
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
