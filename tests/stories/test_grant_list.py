"""Grants read without their tokens: one, a list, a history."""

from __future__ import annotations

from typing import Any

import httpx

from app.sandbox.server import Sandbox
from tests.broker import Broker, bring


async def _get(broker: Broker, path: str, **query: Any) -> dict[str, Any]:
    answer = await broker.http.get(path, params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def _bring(broker: Broker, sandbox: Sandbox, *paths: str) -> list[dict[str, Any]]:
    return [await broker.put(path, bring(sandbox.grant("ada"), expires_in=3600)) for path in paths]


async def _restricted(broker: Broker, **rights: Any) -> httpx.AsyncClient:
    key = await broker.services.keys.create_key(
        consumer="restricted", scopes=["grants:read"], actor="test", **rights
    )
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=broker.app),
        base_url="http://broker.test",
        headers={"Authorization": f"Bearer {key}"},
    )


async def test_a_grant_is_read_by_its_id_and_shows_no_token(broker: Broker, sandbox: Sandbox) -> None:
    [brought] = await _bring(broker, sandbox, "sandbox/ada")
    found = await _get(broker, f"/grants/{brought['id']}")
    assert found == brought
    assert not any("token" in name for name in found)


async def test_a_list_goes_through_all_pages_once_in_the_order_of_making(
    broker: Broker, sandbox: Sandbox
) -> None:
    brought = await _bring(broker, sandbox, *(f"sandbox/user-{number}" for number in range(7)))
    seen: list[str] = []
    cursor = None
    while True:
        found = await _get(broker, "/grants", limit=3, **({"cursor": cursor} if cursor else {}))
        seen += [grant["id"] for grant in found["items"]]
        cursor = found["next_cursor"]
        if cursor is None:
            break
    assert seen == [grant["id"] for grant in brought]


async def test_a_list_is_filtered(broker: Broker, sandbox: Sandbox) -> None:
    await _bring(broker, sandbox, "sandbox/ada", "sandbox/bob", "keeps/ada")
    await broker.put("keeps/old", bring(sandbox.grant("old")))

    async def users(**query: Any) -> list[str]:
        items = (await _get(broker, "/grants", **query))["items"]
        return [f"{grant['provider']}/{grant['user_id']}" for grant in items]

    assert await users(provider="keeps") == ["keeps/ada", "keeps/old"]
    assert await users(user_id="ada") == ["sandbox/ada", "keeps/ada"]
    assert await users(status="reconnect_required") == []
    assert await users(expires_before="2021-01-01T00:00:00Z") == ["keeps/old"]


async def test_a_deleted_grant_is_neither_listed_nor_found(broker: Broker, sandbox: Sandbox) -> None:
    [brought] = await _bring(broker, sandbox, "sandbox/ada")
    await broker.http.delete("/grants/sandbox/ada")
    assert (await _get(broker, "/grants"))["items"] == []
    assert (await broker.http.get(f"/grants/{brought['id']}")).status_code == 404


async def test_a_restricted_key_lists_and_finds_only_what_it_may_see(
    broker: Broker, sandbox: Sandbox
) -> None:
    brought = await _bring(
        broker, sandbox, "sandbox/acme-1", "sandbox/zeta", "keeps/acme-1", "sandbox/acme_2"
    )
    async with await _restricted(broker, providers=["sandbox"], users=["acme-*"]) as http:
        listed = (await http.get("/grants")).json()["items"]
        foreign = await http.get(f"/grants/{brought[1]['id']}")
        absent = await http.get("/grants/00000000-0000-7000-8000-000000000000")
    assert [grant["user_id"] for grant in listed] == ["acme-1"]
    assert {**foreign.json(), "request_id": ""} == {**absent.json(), "request_id": ""}
    assert (foreign.status_code, foreign.json()["code"]) == (404, "grant_not_found")


async def test_the_history_tells_every_attempt_the_latest_first(broker: Broker, sandbox: Sandbox) -> None:
    brought = await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(faults=[{"kind": "status", "status": 503}])
    await broker.token("sandbox/ada")
    first = await _get(broker, f"/grants/{brought['id']}/history", limit=1)
    second = await _get(broker, f"/grants/{brought['id']}/history", limit=1, cursor=first["next_cursor"])
    [good], [bad] = first["items"], second["items"]
    assert (good["outcome"], good["generation"], good["trigger"]) == ("refreshed", 2, "request")
    assert (bad["outcome"], bad["category"], bad["provider_code"]) == ("failed", "transient", "http_503")
    assert second["next_cursor"] is None


async def test_what_is_no_cursor_is_named(broker: Broker) -> None:
    for cursor in ("x", "not a cursor", "AAAA"):
        answer = await broker.http.get("/grants", params={"cursor": cursor})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "query.cursor")
