"""GET /audit: who did what, the latest first."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import httpx

from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, Broker, bring
from tests.postgres import as_owner


async def page(broker: Broker, **query: Any) -> dict[str, Any]:
    answer = await broker.http.get("/audit", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def actions(broker: Broker, **query: Any) -> list[str]:
    return [item["action"] for item in (await page(broker, **query))["items"]]


async def key_of(broker: Broker, name: str, *scopes: str) -> dict[str, str]:
    """The header of a new consumer called so."""
    created = await broker.http.post("/consumers", json={"name": name, "scopes": scopes})
    key = await broker.http.post(f"/consumers/{created.json()['id']}/keys")
    return {"Authorization": f"Bearer {key.json()['key']}"}


async def put_as(broker: Broker, headers: dict[str, str], path: str) -> dict[str, Any]:
    body = {"access_token": f"at-{path}", "expires_in": 3600}
    answer = await broker.http.put(f"/grants/{path}", json=body, headers=headers)
    assert answer.status_code in (200, 201), answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_an_event_says_who_did_what_to_which_grant_and_in_which_request(broker: Broker) -> None:
    before = broker.services.clock.now()
    headers = await key_of(broker, "imports", "grants:write")
    grant = await put_as(broker, {**headers, "X-Request-ID": "import-7"}, "keeps/ada")
    [event] = (await page(broker, action="grant.created"))["items"]
    assert event == {
        "id": event["id"],
        "at": event["at"],
        "actor": "imports",
        "action": "grant.created",
        "provider": "keeps",
        "user_id": "ada",
        "grant_id": grant["id"],
        "request_id": "import-7",
        "sequence": event["sequence"],
        "details": {"generation": 1},
    }
    assert event["at"].endswith("Z")
    assert abs(datetime.fromisoformat(event["at"]) - before) < timedelta(seconds=10)


async def test_the_latest_comes_first(broker: Broker) -> None:
    for number in range(5):
        await put_as(broker, {}, f"keeps/user-{number}")
        await asyncio.sleep(0.002)  # an id tells milliseconds
    items = (await page(broker, action="grant.created"))["items"]
    assert [item["user_id"] for item in items] == [f"user-{number}" for number in (4, 3, 2, 1, 0)]
    assert [item["at"] for item in items] == sorted((item["at"] for item in items), reverse=True)


async def test_each_filter_is_exact_and_all_together_narrow_it_down(broker: Broker) -> None:
    for actor in ("imports", "crm"):
        headers = await key_of(broker, actor, "grants:write")
        for path in ("keeps/ada", "keeps/bob", "graced/ada", "graced/ada%20l"):
            await put_as(broker, headers, path)
    grant = (await broker.http.get("/grants?provider=keeps&user_id=ada")).json()["items"][0]
    assert len(await actions(broker, actor="crm")) == 4
    assert await actions(broker, actor="imports", action="grant.created") == ["grant.created"] * 4
    assert len(await actions(broker, provider="keeps")) == 4
    assert len(await actions(broker, user_id="ada")) == 4
    assert len(await actions(broker, user_id="ada l")) == 2
    assert await actions(broker, grant_id=grant["id"]) == ["grant.replaced", "grant.created"]
    asked = {**headers, "X-Request-ID": "import-8"}
    await put_as(broker, asked, "keeps/cem")
    assert await actions(broker, request_id="import-8") == ["grant.created"]
    assert await actions(broker, request_id="import-9") == []
    everything = {
        "actor": "crm",
        "action": "grant.replaced",
        "provider": "keeps",
        "user_id": "ada",
        "grant_id": grant["id"],
        "since": "2020-01-01T00:00:00Z",
        "until": "2190-01-01T00:00:00Z",
    }
    assert await actions(broker, **everything) == ["grant.replaced"]
    for name, other in (("actor", "imports"), ("action", "grant.created"), ("provider", "graced")):
        assert await actions(broker, **{**everything, name: other}) == [], name
    for value in ("cr", "crm ", "CRM", "%", "c*", "crm' OR '1'='1"):
        assert await actions(broker, actor=value) == [], value


async def test_since_is_included_and_until_is_not(broker: Broker) -> None:
    for user in ("a", "b", "c"):
        await put_as(broker, {}, f"keeps/{user}")
        await asyncio.sleep(0.002)
    at = {item["user_id"]: item["at"] for item in (await page(broker, action="grant.created"))["items"]}
    created = {"action": "grant.created"}
    assert len(await actions(broker, **created, since=at["b"])) == 2
    assert len(await actions(broker, **created, until=at["b"])) == 1
    assert len(await actions(broker, **created, since=at["b"], until=at["c"])) == 1
    assert await actions(broker, **created, since=at["c"], until=at["a"]) == []
    there = datetime.fromisoformat(at["b"]).astimezone().isoformat()
    assert len(await actions(broker, **created, since=there)) == 2


async def test_pages_have_neither_gap_nor_repetition_while_new_events_arrive(broker: Broker) -> None:
    present = []
    for number in range(11):
        present.append((await put_as(broker, {}, f"keeps/user-{number}"))["id"])
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for number in range(100):
        found = await page(broker, action="grant.created", limit=3, **cursor)
        seen += [item["grant_id"] for item in found["items"]]
        await put_as(broker, {}, f"keeps/late-{number}")
        if found["next_cursor"] is None:
            break
        assert len(found["items"]) == 3
        cursor = {"cursor": found["next_cursor"]}
    assert len(seen) == len(set(seen))
    assert set(seen) == set(present)


async def test_a_page_that_ends_exactly_at_the_end_is_the_last(broker: Broker) -> None:
    for number in range(4):
        await put_as(broker, {}, f"keeps/user-{number}")
    first = await page(broker, action="grant.created", limit=2)
    last = await page(broker, action="grant.created", limit=2, cursor=first["next_cursor"])
    assert (len(first["items"]), len(last["items"]), last["next_cursor"]) == (2, 2, None)


NONSENSE = [
    ("cursor", "x"),
    ("cursor", "not a cursor"),
    ("cursor", "AAAA"),
    ("cursor", "A" * 65),
    ("cursor", "ä" * 22),
    ("cursor", ""),
    ("limit", "0"),
    ("limit", "501"),
    ("limit", "many"),
    ("grant_id", "ada"),
    ("since", "yesterday"),
    ("since", "1700000000"),
    ("until", "2026-11-22T10:00:00"),
    ("until", "9999-01-01T00:00:00Z"),
    ("actor", ""),
    ("user_id", "a\0b"),
    ("action", "a" * 256),
    ("request_id", "a b"),
    ("request_id", "a" * 129),
]


async def test_what_makes_no_sense_is_refused_by_field(broker: Broker) -> None:
    for field, value in NONSENSE:
        answer = await broker.http.get("/audit", params={field: value})
        assert answer.status_code == 422, (field, value)
        assert answer.json()["errors"][0]["field"] == f"query.{field}", value


async def test_the_trail_of_a_grant_outlives_it(broker: Broker, sandbox: Sandbox) -> None:
    grant = await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    await broker.token("sandbox/ada")
    await broker.http.delete("/grants/sandbox/ada")
    again = await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    trail = (await page(broker, grant_id=grant["id"]))["items"]
    told = [(item["action"], item["actor"]) for item in trail]
    assert [each for each in told if each[0] != "token.disclosed"] == [
        ("grant.revoked_upstream", "broker"),
        ("grant.deleted", "admin"),
        ("grant.refreshed", "broker"),
        ("grant.created", "admin"),
    ]
    assert again["id"] != grant["id"]
    assert await actions(broker, grant_id=str(uuid4())) == []


async def test_a_browser_that_connects_is_called_user_and_a_dead_grant_is_told(
    broker: Broker, sandbox: Sandbox
) -> None:
    wanted = {"user_id": "ada", "login_hint": "ada", "browser_bound": False}
    begun = (await broker.http.post("/oauth/sandbox/authorize", json=wanted)).json()
    async with httpx.AsyncClient(trust_env=False) as browser:
        back = (await browser.get(begun["authorization_url"])).headers["location"]
    await broker.http.get(back.partition(":8080")[2])
    sandbox.revoke("ada")
    await broker.http.post("/tokens/sandbox/ada/refresh", json={"generation": 1})
    trail = (await page(broker, user_id="ada"))["items"]
    assert [(item["action"], item["actor"]) for item in trail] == [
        ("grant.reconnect_required", "broker"),
        ("grant.created", "user"),
        ("connect.begun", "admin"),
    ]
    assert trail[0]["details"]["reason"] == "invalid_grant"


async def test_consumers_keys_and_refused_requests(broker: Broker) -> None:
    created = await broker.http.post("/consumers", json={"name": "reports", "scopes": ["tokens:read"]})
    path = f"/consumers/{created.json()['id']}/keys"
    key = (await broker.http.post(path)).json()
    await broker.http.delete(f"{path}/{key['id']}")
    await broker.http.delete(f"{path}/{key['id']}")  # not there any more
    await broker.http.post("/consumers", json={"name": "reports", "scopes": ["tokens:read"]})  # taken
    assert await actions(broker, actor="admin") == ["key.revoked", "key.created", "consumer.created"]


async def test_no_event_holds_a_secret(broker: Broker, sandbox: Sandbox, database_url: str) -> None:
    tokens = sandbox.grant("ada")
    await broker.put("sandbox/ada", bring(tokens))
    renewed = await broker.token("sandbox/ada")
    client = {"catalogue": "sandbox", "client_id": "acme", "client_secret": "s3cr3t-of-acme"}
    await broker.http.put("/clients/sandbox-acme", json=client)
    headers = await key_of(broker, "reports", "tokens:read")
    await broker.http.delete("/grants/sandbox/ada")
    connection = await asyncpg.connect(as_owner(database_url))
    stored = " ".join(map(str, await connection.fetch("TABLE audit_events")))
    await connection.close()
    shown = (await broker.http.get("/audit")).text
    secrets = [
        *(tokens["access_token"], tokens["refresh_token"], renewed["access_token"]),
        *("s3cr3t-of-acme", ADMIN_KEY, ADMIN_KEY[-64:], headers["Authorization"][-64:]),
    ]
    assert not [secret for secret in secrets if secret in stored + shown]
    assert "grant.refreshed" in stored and "grant.refreshed" in shown


async def test_only_an_admin_reads_it(broker: Broker) -> None:
    headers = await key_of(broker, "most", "grants:read", "grants:write", "tokens:read", "tokens:refresh")
    answer = await broker.http.get("/audit", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert (await broker.http.get("/api/v1/audit")).status_code == 200
