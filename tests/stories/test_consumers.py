"""POST /consumers and their keys."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.consumers.consumer import Consumer
from app.errors import RateLimited
from app.resilience import Rate
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
        ({"name": "broker"}, "body.name"),
        ({"name": "command line"}, "body.name"),
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


async def test_consumers_and_their_keys_are_listed_without_a_secret(broker: Broker) -> None:
    consumer = await _create(broker, users=["acme-*"], rate={"limit": 5, "per_seconds": 1})
    keys = [await _key(broker, consumer), await _key(broker, consumer, expires_at="2100-01-01T00:00:00Z")]
    await broker.http.delete(f"/consumers/{consumer['id']}/keys/{keys[0]['id']}")
    listed = (await broker.http.get("/consumers")).json()
    assert consumer in listed["items"]
    answer = await broker.http.get(f"/consumers/{consumer['id']}/keys")
    entries = {entry["id"]: entry for entry in answer.json()["items"]}
    assert set(entries) == {key["id"] for key in keys}
    assert entries[keys[0]["id"]]["revoked_at"] is not None
    assert entries[keys[1]["id"]]["expires_at"] == "2100-01-01T00:00:00Z"
    assert all(key["key"] not in answer.text for key in keys)


async def test_when_a_key_was_last_used_is_known(broker: Broker) -> None:
    consumer = await _create(broker)
    used, unused = await _key(broker, consumer), await _key(broker, consumer)
    await _status(broker, used["key"], "/providers")
    await broker.run("flush_key_uses")
    entries = (await broker.http.get(f"/consumers/{consumer['id']}/keys")).json()["items"]
    assert {entry["id"]: entry["last_used_at"] is not None for entry in entries} == {
        used["id"]: True,
        unused["id"]: False,
    }


async def test_changed_rights_hold_for_all_keys_at_all_replicas(
    broker: Broker, twin: Broker, sandbox: Sandbox
) -> None:
    for user in ("acme-1", "zeta"):
        await broker.put(f"sandbox/{user}", bring(sandbox.grant(user), expires_in=3600))
    consumer = await _create(broker, users=["acme-*"])
    key = (await _key(broker, consumer))["key"]
    for replica in (broker, twin):
        assert await _status(replica, key) == 200
    changed = await broker.http.patch(f"/consumers/{consumer['id']}", json={"users": ["zeta"]})
    assert changed.json() == {**consumer, "users": ["zeta"]}
    assert await _status(broker, key) == 404
    async with asyncio.timeout(2):
        while await _status(twin, key) != 404:
            await asyncio.sleep(0.02)
    assert await _status(twin, key, "/tokens/sandbox/zeta") == 200


async def test_what_is_left_out_of_a_change_stays_and_null_takes_a_bound_away(broker: Broker) -> None:
    consumer = await _create(broker, users=["a"], providers=["sandbox"], rate={"limit": 5, "per_seconds": 1})
    path = f"/consumers/{consumer['id']}"
    assert (await broker.http.patch(path, json={})).json() == consumer
    free = (await broker.http.patch(path, json={"users": None, "providers": None, "rate": None})).json()
    assert free == {**consumer, "users": None, "providers": None, "rate": None}
    wrong = await broker.http.patch(path, json={"scopes": None})
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "body.scopes")


async def test_a_deleted_consumers_keys_end_everywhere_and_its_name_is_free(
    broker: Broker, twin: Broker
) -> None:
    consumer = await _create(broker)
    key = (await _key(broker, consumer))["key"]
    for replica in (broker, twin):
        assert await _status(replica, key, "/providers") == 200
    assert (await broker.http.delete(f"/consumers/{consumer['id']}")).status_code == 204
    assert await _status(broker, key, "/providers") == 401
    async with asyncio.timeout(2):
        while await _status(twin, key, "/providers") != 401:
            await asyncio.sleep(0.02)
    assert (await _create(broker))["id"] != consumer["id"]


async def test_the_consumer_of_the_admin_key_is_not_changed_by_a_request(broker: Broker) -> None:
    items = (await broker.http.get("/consumers")).json()["items"]
    admin = next(item for item in items if item["name"] == "admin")
    answers = [
        await broker.http.patch(f"/consumers/{admin['id']}", json={"scopes": ["tokens:read"]}),
        await broker.http.delete(f"/consumers/{admin['id']}"),
    ]
    assert [answer.json()["code"] for answer in answers] == ["conflict", "conflict"]


async def test_the_audit_trail_tells_which_rights_became_which_and_by_which_key(
    broker: Broker, sandbox: Sandbox
) -> None:
    await broker.put("sandbox/acme-1", bring(sandbox.grant("acme-1"), expires_in=3600))
    consumer = await _create(broker, users=["acme-*"], rate={"limit": 5, "per_seconds": 1})
    key = await _key(broker, consumer, expires_at="2100-01-01T00:00:00Z")
    await broker.http.patch(f"/consumers/{consumer['id']}", json={"users": None})
    assert await _status(broker, key["key"]) == 200
    await broker.run("flush_disclosures")
    events = (await broker.http.get("/audit", params={"limit": 100})).json()["items"]
    told = {event["action"]: event["details"] for event in events}
    rights = {"scopes": ["tokens:read"], "providers": None, "rate": {"limit": 5, "per_seconds": 1}}
    named = {"consumer": "reports", "consumer_id": consumer["id"]}
    assert told["consumer.created"] == {**named, **rights, "users": ["acme-*"]}
    assert told["consumer.changed"] == {
        **named,
        "before": {**rights, "users": ["acme-*"]},
        "after": {**rights, "users": None},
    }
    assert (told["key.created"]["key_id"], told["key.created"]["expires_at"][:4]) == (key["id"], "2100")
    assert told["token.disclosed"]["key_id"] == key["id"]


async def test_a_rate_of_a_consumer_deleted_a_moment_ago_is_no_crash(broker: Broker) -> None:
    gone = Consumer(uuid4(), "gone", frozenset(), rate=Rate(5, 60))
    with pytest.raises(RateLimited):
        await broker.services.limiter.admit(gone)
