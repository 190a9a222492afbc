"""The fast lane: what it answers is what the route answers, byte for byte, and nothing that the route would refuse."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest

from app.api.lane import BrokerApp
from app.consumers import authenticate
from app.grants.grant import GrantKey
from app.grants.refresh import Refresher
from app.grants.token import Token
from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, Broker, Replica, Replicas, bring, settings_for
from tests.plans import statements
from tests.postgres import database

ROUTED = {"more": "1"}  # a parameter that nobody knows: left to the route
ITEM = {"provider": "sandbox", "user_id": "ada"}


@pytest.fixture(autouse=True)
def _keys_are_known_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is; what is announced of them is heard at once all the same."""
    monkeypatch.setattr(authenticate, "_CACHE_SECONDS", 60.0)


class Routed(Counter[str]):
    """How often the route fetched a token of each user."""


@pytest.fixture
def routed(monkeypatch: pytest.MonkeyPatch) -> Routed:
    counted, fresh = Routed(), Refresher.fresh

    async def noted(self: Refresher, key: Any, *arguments: Any, **more: Any) -> Token:
        counted[key.user_id] += 1
        return await fresh(self, key, *arguments, **more)

    monkeypatch.setattr(Refresher, "fresh", noted)
    return counted


@pytest.fixture
async def ada(broker: Broker, sandbox: Sandbox, routed: Routed) -> dict[str, Any]:
    """A grant whose token is in memory, and a key that was right a moment ago."""
    grant = await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600), scope="basic")
    await settled(broker)
    routed.clear()
    return grant


def reads(asked: Sequence[tuple[str, tuple[Any, ...]]]) -> list[str]:
    """Of grants and keys; what the service does by itself meanwhile goes on."""
    return [text for text, _ in asked if text.startswith(("SELECT grants.", "SELECT api_keys."))]


async def settled(broker: Broker) -> None:
    """Until a token is answered from memory: what this replica announced comes back to it as well."""
    async with asyncio.timeout(10):
        while True:
            with statements() as asked:
                await broker.token("sandbox/ada")
                await asyncio.sleep(0.05)
                await broker.token("sandbox/ada")
            if not reads(asked):
                return


async def key_of(broker: Broker, **rights: Any) -> tuple[str, dict[str, str]]:
    """A consumer's id, and the header with its key, which was right a moment ago."""
    body = {"name": "reports", "scopes": ["tokens:read"], **rights}
    consumer = (await broker.http.post("/consumers", json=body)).json()["id"]
    key = (await broker.http.post(f"/consumers/{consumer}/keys")).json()["key"]
    header = {"Authorization": f"Bearer {key}"}
    await broker.http.get("/tokens/sandbox/warm", headers=header)
    return consumer, header


def alike(answer: httpx.Response) -> tuple[int, str, dict[str, str]]:
    """All of an answer but what differs from moment to moment."""
    text = re.sub(r'"expires_in":\d+', "", answer.text)
    headers = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "date")}
    return answer.status_code, text, headers


@pytest.mark.parametrize("path", ["/tokens/sandbox/ada", "/api/v1/tokens/sandbox/ada"])
@pytest.mark.parametrize(
    "query", [{}, {"min_ttl": "90", "wait": "5"}, {"scope": "basic"}, {"account": "default"}]
)
@pytest.mark.usefixtures("ada")
async def test_it_answers_what_the_route_answers(
    broker: Broker, routed: Routed, path: str, query: dict[str, str]
) -> None:
    with statements() as asked:
        fast = await broker.http.get(path, params=query)
        again = await broker.http.get(path, params=query)
    assert (routed, reads(asked)) == ({}, [])
    slow = await broker.http.get(path, params=query | ROUTED)
    assert routed == {"ada": 1}
    assert alike(fast) == alike(again) == alike(slow)
    assert abs(fast.json()["expires_in"] - slow.json()["expires_in"]) <= 1


async def test_a_token_that_never_ends_is_answered_as_the_route_answers_it(
    broker: Broker, routed: Routed, database_url: str
) -> None:
    await broker.put("sandbox/ada", {"access_token": 'odd "token", {"expires_in":5,'})
    async with database(database_url) as connection:
        await connection.execute("UPDATE grants SET expires_at = NULL")
    slow = await broker.http.get("/tokens/sandbox/ada", params=ROUTED)
    fast, again = [await broker.http.get("/tokens/sandbox/ada") for _ in range(2)]
    assert routed == {"ada": 1}
    assert alike(fast) == alike(again) == alike(slow)
    assert fast.json()["expires_in"] is None


async def test_a_grant_that_is_not_known_is_read_by_one_statement(
    broker: Broker, sandbox: Sandbox, routed: Routed, ada: dict[str, Any]
) -> None:
    await broker.put("sandbox/bob", bring(sandbox.grant("bob"), expires_in=3600))
    with statements() as asked:
        await broker.token("sandbox/bob")
    assert (len(reads(asked)), routed) == (1, {})


async def test_each_answer_has_an_id_of_its_own_or_the_one_it_was_given(
    broker: Broker, ada: dict[str, Any]
) -> None:
    answers = [await broker.http.get("/tokens/sandbox/ada") for _ in range(20)]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 20
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)
    named = await broker.http.get("/tokens/sandbox/ada", headers={"X-Request-ID": "mine"})
    assert named.headers["x-request-id"] == "mine"


async def test_a_changed_grant_is_answered_as_it_is_now(
    broker: Broker, sandbox: Sandbox, ada: dict[str, Any], routed: Routed
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    assert (await broker.token("sandbox/ada"))["generation"] == ada["generation"] + 1
    assert (await broker.http.delete("/grants/sandbox/ada")).status_code == 200
    assert (await broker.http.get("/tokens/sandbox/ada")).status_code == 404


async def test_a_grant_that_another_replica_changes_is_answered_as_it_is_as_soon_as_that_is_heard(
    broker: Broker, twin: Broker, sandbox: Sandbox, ada: dict[str, Any]
) -> None:
    await twin.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    async with asyncio.timeout(2):
        while (await broker.token("sandbox/ada"))["generation"] == ada["generation"]:
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("ada")
async def test_a_key_that_is_revoked_is_refused_at_once(broker: Broker) -> None:
    consumer, header = await key_of(broker)
    assert (await broker.http.get("/tokens/sandbox/ada", headers=header)).status_code == 200
    [key] = (await broker.http.get(f"/consumers/{consumer}/keys")).json()["items"]
    assert (await broker.http.delete(f"/consumers/{consumer}/keys/{key['id']}")).status_code in (200, 204)
    assert (await broker.http.get("/tokens/sandbox/ada", headers=header)).status_code == 401


@pytest.mark.usefixtures("ada")
@pytest.mark.parametrize(
    ("rights", "status"),
    [({"users": ["bob"]}, 404), ({"providers": ["graced"]}, 404), ({"scopes": ["grants:read"]}, 403)],
    ids=str,
)
async def test_what_a_consumer_may_no_longer_see_is_not_answered(
    broker: Broker, rights: dict[str, Any], status: int
) -> None:
    consumer, header = await key_of(broker)
    assert (await broker.http.get("/tokens/sandbox/ada", headers=header)).status_code == 200
    assert (await broker.http.patch(f"/consumers/{consumer}", json=rights)).status_code == 200
    answer = await broker.http.get("/tokens/sandbox/ada", headers=header)
    assert answer.status_code == status
    batch = await broker.http.post("/tokens/batch", json={"items": [ITEM]}, headers=header)
    assert 200 not in {item["status"] for item in batch.json().get("items", [])}


@pytest.mark.usefixtures("ada")
async def test_a_batch_that_comes_again_and_again_is_answered_as_things_are_now(
    broker: Broker, sandbox: Sandbox
) -> None:
    consumer, header = await key_of(broker)

    async def answered(headers: dict[str, str]) -> list[tuple[int, str | None]]:
        answer = await broker.http.post("/tokens/batch", json={"items": [ITEM, ITEM]}, headers=headers)
        items = answer.json()["items"]
        return [(item["status"], item.get("token", {}).get("access_token")) for item in items]

    [first, *others] = [await answered(header) for _ in range(4)]
    assert others == [first] * 3
    assert await answered({}) == first
    fresh = sandbox.grant("ada")
    await broker.put("sandbox/ada", bring(fresh, expires_in=3600))
    assert await answered(header) == [(200, fresh["access_token"])] * 2
    assert (await broker.http.patch(f"/consumers/{consumer}", json={"users": ["bob"]})).status_code == 200
    assert {status for status, _ in await answered(header)} == {404}
    assert await answered({}) == [(200, fresh["access_token"])] * 2


@pytest.mark.usefixtures("ada")
async def test_one_consumers_answer_is_never_anothers(broker: Broker) -> None:
    _, header = await key_of(broker, users=["bob"])
    for _ in range(2):
        assert (await broker.http.get("/tokens/sandbox/ada")).status_code == 200
        assert (await broker.http.get("/tokens/sandbox/ada", headers=header)).status_code == 404


@pytest.mark.usefixtures("ada")
async def test_every_answer_counts_against_the_rate(broker: Broker) -> None:
    _, header = await key_of(broker, rate={"limit": 10, "per_seconds": 3600})  # which takes one
    answers = [await broker.http.get("/tokens/sandbox/ada", headers=header) for _ in range(12)]
    assert [answer.status_code for answer in answers] == [200] * 9 + [429] * 3


async def test_a_token_inside_the_margin_is_left_to_the_route_which_renews_it_behind_the_answer(
    broker: Broker, sandbox: Sandbox, routed: Routed, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    async with database(database_url) as connection:
        await connection.execute("UPDATE grants SET next_refresh_at = now()")
    assert (await broker.token("sandbox/ada"))["generation"] == 1
    assert routed == {"ada": 1}
    async with asyncio.timeout(5):
        while (await broker.token("sandbox/ada"))["generation"] == 1:
            await asyncio.sleep(0.02)
    assert sandbox.report()["refreshes"] == 1


async def test_all_that_was_answered_is_told_soon(
    broker: Broker, ada: dict[str, Any], database_url: str, routed: Routed
) -> None:
    series = 'broker_http_requests_total{method="GET",route="/tokens/{provider}/{user_id}",status="200"}'
    before = await _metric(broker, series)
    already = await _given(broker, database_url)
    await asyncio.gather(*(broker.token("sandbox/ada") for _ in range(40)))
    batch = await broker.http.post("/tokens/batch", json={"items": [ITEM] * 3})
    assert (batch.status_code, routed) == (200, {})
    assert await _metric(broker, series) == before + 40
    assert await _given(broker, database_url) == already + 40 + 3
    await broker.run("flush_uses")
    async with database(database_url) as connection:
        assert await connection.fetchval("SELECT last_used_at FROM grants") is not None


async def test_a_token_that_is_of_no_use_any_more_is_not_kept_in_the_clear(
    broker: Broker, sandbox: Sandbox, ada: dict[str, Any]
) -> None:
    assert isinstance(broker.app, BrokerApp) and broker.app.lane is not None
    shelf = broker.app.lane._shelf
    await broker.put("sandbox/bob", bring(sandbox.grant("bob"), expires_in=3600))
    await settled(broker)
    await broker.token("sandbox/bob")
    shelf.sweep()
    assert {found.key.user_id for found in shelf._ready.values()} == {"ada", "bob"}
    await broker.http.delete("/grants/sandbox/ada")
    shelf.sweep()
    assert {found.key.user_id for found in shelf._ready.values()} == {"bob"}
    next(iter(shelf._ready.values())).until = 0.0
    shelf.sweep()
    assert not shelf._ready


async def test_where_the_trail_is_strict_there_is_no_lane(
    database_url: str, providers_dir: Any, tmp_path: Any, sandbox: Sandbox, routed: Routed
) -> None:
    settings = settings_for(
        database_url, providers_dir, data_dir=tmp_path / "var", audit_disclosures="strict"
    )
    async with Broker.running(settings) as broker:
        assert isinstance(broker.app, BrokerApp) and broker.app.lane is None
        await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
        for _ in range(3):
            await broker.token("sandbox/ada")
    assert routed == {"ada": 3}


async def test_a_batch_is_answered_as_the_route_answers_it(
    broker: Broker, sandbox: Sandbox, routed: Routed
) -> None:
    for user in ("ada", "bob", "cleo"):
        await broker.put(f"sandbox/{user}", bring(sandbox.grant(user), expires_in=3600), scope="basic")
    items = [
        {"provider": "sandbox", "user_id": "bob"},
        {"provider": "sandbox", "user_id": "ada", "min_ttl": 90, "account": "default", "scope": "basic"},
        {"provider": "sandbox", "user_id": "bob"},
        {"provider": "sandbox", "user_id": "cleo"},
    ]
    await settled(broker)
    for user in ("ada", "bob", "cleo"):
        broker.services.known.forget(GrantKey("sandbox", user))
    routed.clear()
    with statements() as asked:
        first = await broker.http.post("/tokens/batch", json={"items": items})
    assert (len(reads(asked)), routed) == (1, {})
    with statements() as asked:
        fast = await broker.http.post("/tokens/batch", json={"items": items})
    assert (reads(asked), routed) == ([], {})
    slow = await broker.http.post("/tokens/batch", json={"items": items}, params=ROUTED)
    assert routed.total() == 4
    assert alike(first) == alike(fast) == alike(slow)


@pytest.mark.usefixtures("ada")
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"items": [{**ITEM, "min_ttl": True}]}, 422),
        ({"items": [{**ITEM, "min_ttl": 60.0}]}, 422),
        ({"items": [{**ITEM, "more": 1}]}, 422),
        ({"items": [{"provider": "sandbox", "scope": ""}]}, 422),
        ({"items": [{"provider": "sandbox", "user_id": ["ada"]}]}, 422),
        ({"items": [ITEM], "more": 1}, 422),
        ({"items": []}, 422),
        ({"items": [ITEM] * 101}, 422),
        ({"items": [{**ITEM, "user_id": "."}, ITEM]}, 422),
        ([ITEM], 422),
        ({"items": [ITEM, {**ITEM, "user_id": "nobody"}]}, 200),
    ],
    ids=lambda value: str(value)[:50],
)
async def test_a_batch_that_is_not_plain_is_the_routes(broker: Broker, body: Any, status: int) -> None:
    await broker.http.post("/tokens/batch", json={"items": [ITEM]})
    fast = await broker.http.post("/tokens/batch", json=body)
    slow = await broker.http.post("/tokens/batch", json=body, params=ROUTED)
    assert fast.status_code == slow.status_code == status
    assert re.sub(r'"request_id":"\w+"|"expires_in":\d+', "", fast.text) == re.sub(
        r'"request_id":"\w+"|"expires_in":\d+', "", slow.text
    )


async def test_all_that_a_batch_lacks_is_read_by_one_statement_absent_and_foreign_ones_too(
    broker: Broker, sandbox: Sandbox
) -> None:
    for user in ("ada", "bob", "mine-1"):
        await broker.put(f"sandbox/{user}", bring(sandbox.grant(user), expires_in=3600))
    _, header = await key_of(broker, users=["mine-*"])
    users = ["mine-1", "ada", "bob", "mine-2", "nobody"]
    items = [{"provider": "sandbox", "user_id": user} for user in users]
    with statements() as asked:
        answer = await broker.http.post("/tokens/batch", json={"items": items}, headers=header, params=ROUTED)
    assert [item["status"] for item in answer.json()["items"]] == [200, 404, 404, 404, 404]
    assert len(reads(asked)) == 1


async def test_what_is_absent_of_a_batch_is_looked_for_once_by_the_lane_and_once_by_the_route(
    broker: Broker, ada: dict[str, Any]
) -> None:
    items = [ITEM, *({"provider": "sandbox", "user_id": f"nobody-{number}"} for number in range(50))]
    with statements() as asked:
        answer = await broker.http.post("/tokens/batch", json={"items": items})
    assert [item["status"] for item in answer.json()["items"]] == [200, *[404] * 50]
    assert len(reads(asked)) <= 2


async def test_a_registration_that_is_deleted_is_no_provider_at_once(broker: Broker, routed: Routed) -> None:
    client = {"catalogue": "sandbox", "client_id": "sandbox", "client_secret": "sandbox-secret"}
    assert (await broker.http.put("/clients/extra", json=client)).status_code in (200, 201)
    await broker.put("extra/ada", {"access_token": "at", "expires_in": 3600})
    for _ in range(3):
        await broker.token("extra/ada")
    assert (await broker.http.delete("/clients/extra")).status_code in (200, 204)
    assert (await broker.http.get("/tokens/extra/ada")).status_code == 404


async def test_a_request_id_that_looks_like_a_secret_is_the_routes(
    broker: Broker, ada: dict[str, Any], routed: Routed
) -> None:
    for request_id, times in ((ADMIN_KEY, 1), ("order_17", 0)):
        routed.clear()
        answer = await broker.http.get("/tokens/sandbox/ada", headers={"X-Request-ID": request_id})
        assert (answer.status_code, routed["ada"]) == (200, times)


async def test_a_key_that_is_revoked_while_a_body_arrives_is_refused(
    broker: Broker, ada: dict[str, Any]
) -> None:
    consumer, header = await key_of(broker)
    assert (
        await broker.http.post("/tokens/batch", json={"items": [ITEM]}, headers=header)
    ).status_code == 200
    [key] = (await broker.http.get(f"/consumers/{consumer}/keys")).json()["items"]

    async def body() -> AsyncIterator[bytes]:
        whole = json.dumps({"items": [ITEM]}).encode()
        yield whole[:5]
        await broker.http.delete(f"/consumers/{consumer}/keys/{key['id']}")
        yield whole[5:]

    length = {"Content-Length": str(len(json.dumps({"items": [ITEM]}))), "Content-Type": "application/json"}
    answer = await broker.http.post("/tokens/batch", content=body(), headers=header | length)
    assert answer.status_code == 401


async def test_a_token_that_ends_while_a_body_arrives_is_not_answered(
    broker: Broker, sandbox: Sandbox, ada: dict[str, Any], database_url: str
) -> None:
    async with database(database_url) as connection:
        await connection.execute(
            "UPDATE grants SET expires_at = now() + interval '2 seconds', next_refresh_at = NULL, refresh_fingerprint = NULL, "
            "sealed_refresh_token = NULL"
        )
    broker.services.known.forget(GrantKey("sandbox", "ada"))
    item = {**ITEM, "min_ttl": 0}
    whole = json.dumps({"items": [item]}).encode()
    first = await broker.http.post("/tokens/batch", json={"items": [item]})
    assert first.json()["items"][0]["status"] == 200

    async def body() -> AsyncIterator[bytes]:
        yield whole[:5]
        await asyncio.sleep(2.2)
        yield whole[5:]

    length = {"Content-Length": str(len(whole)), "Content-Type": "application/json"}
    answer = await broker.http.post("/tokens/batch", content=body(), headers=length)
    assert answer.json()["items"][0]["status"] == 409


async def test_a_length_that_is_none_is_the_routes(broker: Broker, ada: dict[str, Any]) -> None:
    length = {"Content-Length": "0" * 5000 + "2", "Content-Type": "application/json"}
    answer = await broker.http.post("/tokens/batch", content=b"{}", headers=length)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.fixture
def replica(replicas: Replicas) -> Replica:
    return replicas.start()


@pytest.fixture
async def http(replica: Replica) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with httpx.AsyncClient(base_url=replica.url, headers=headers, timeout=30) as client:
        yield client


async def test_the_server_answers_pipelined_requests_in_their_order_whoever_answers_each(
    replica: Replica, http: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    await http.put("/grants/sandbox/ada", json=bring(sandbox.grant("ada"), expires_in=3600))
    await http.get("/tokens/sandbox/ada")
    host, port = replica.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    paths = [
        "/tokens/sandbox/ada",
        "/tokens/sandbox/nobody",
        "/tokens/sandbox/ada",
        "/providers",
        "/tokens/sandbox/ada",
    ]
    for number, path in enumerate(paths):
        head = f"GET {path} HTTP/1.1\r\nHost: broker\r\nAuthorization: Bearer {ADMIN_KEY}\r\nX-Request-ID: n{number}\r\n"
        writer.write(head.encode() + (b"Connection: close\r\n" if number == 4 else b"") + b"\r\n")
    answered = (await asyncio.wait_for(reader.read(-1), 10)).decode()
    writer.close()
    heads = re.findall(r"HTTP/1.1 (\d+) .*?x-request-id: (\w+)", answered, re.DOTALL)
    assert heads == [("200", "n0"), ("404", "n1"), ("200", "n2"), ("200", "n3"), ("200", "n4")]


async def test_the_server_tells_of_each_fast_answer_in_a_line(
    replica: Replica, http: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    grant = (await http.put("/grants/sandbox/ada", json=bring(sandbox.grant("ada"), expires_in=3600))).json()
    for number in range(5):
        answer = await http.get("/tokens/sandbox/ada", headers={"X-Request-ID": f"fast-{number}"})
        assert answer.headers["server"] if "server" in answer.headers else answer.headers["date"]
    await http.post("/tokens/batch", json={"items": [ITEM]}, headers={"X-Request-ID": "fast-batch"})
    slow = await http.get("/tokens/sandbox/ada", params=ROUTED, headers={"X-Request-ID": "slow"})
    assert slow.status_code == 200
    replica.terminate()
    assert await asyncio.to_thread(replica.wait) == 0
    lines = {line.get("request_id"): line for line in map(json.loads, replica.log.read_text().splitlines())}
    routed_line = lines["slow"]
    for number in range(5):
        line = lines[f"fast-{number}"]
        assert line.keys() == routed_line.keys()
        same = {name for name in line if line[name] == routed_line[name]}
        assert line.keys() - same <= {"at", "milliseconds", "request_id"}
        assert line["grant_id"] == grant["id"]
    assert (lines["fast-batch"]["items"], lines["fast-batch"]["failed"]) == (1, 0)


async def _metric(broker: Broker, series: str) -> float:
    text = (await broker.http.get("/metrics")).text
    return float(next((line.split()[-1] for line in text.splitlines() if line.startswith(series)), 0))


async def _given(broker: Broker, database_url: str) -> int:
    """How many tokens were given out by now, by the trail."""
    await broker.run("flush_disclosures")
    await broker.services.disclosures.close()  # ends the minute, of which the rest is told then
    async with database(database_url) as connection:
        told = await connection.fetchval(
            "SELECT coalesce(sum((details->>'count')::int), 0) FROM audit_events WHERE action = 'token.disclosed'"
        )
    return int(told)
