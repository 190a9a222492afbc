"""POST /tokens/batch, GET /providers and POST /refresh/run."""

from __future__ import annotations

from typing import Any

import pytest

from app.sandbox.server import Sandbox
from tests.broker import Broker, bring


async def _batch(broker: Broker, *items: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await broker.http.post("/tokens/batch", json={"items": items})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def test_a_batch_answers_each_item_in_order_and_for_itself(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    await broker.put("sandbox/bob", bring(sandbox.grant("bob")))
    await broker.put("sandbox/cleo", bring({"access_token": "at"}))
    found = await _batch(
        broker,
        {"provider": "sandbox", "user_id": "bob"},
        {"provider": "sandbox", "user_id": "nobody"},
        {"provider": "sandbox", "user_id": "ada"},
        {"provider": "sandbox", "user_id": "cleo"},
        {"provider": "nowhere", "user_id": "ada"},
        {"provider": "sandbox", "user_id": "ada", "scope": "more"},
    )
    assert [item["status"] for item in found] == [200, 404, 200, 409, 404, 409]
    assert (found[0]["token"]["user_id"], found[0]["token"]["refreshed"]) == ("bob", True)
    codes = [item["problem"]["code"] for item in found if "problem" in item]
    assert codes == ["grant_not_found", "reconnect_required", "unknown_provider", "insufficient_scope"]


async def test_a_batch_that_names_one_expired_grant_often_refreshes_it_once(
    broker: Broker, sandbox: Sandbox
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    found = await _batch(broker, *[{"provider": "sandbox", "user_id": "ada"}] * 100)
    assert {item["token"]["generation"] for item in found} == {2}
    assert sandbox.report()["refreshes"] == 1


@pytest.mark.parametrize("count", [0, 101])
async def test_a_batch_has_one_to_a_hundred_items(broker: Broker, count: int) -> None:
    items = [{"provider": "sandbox", "user_id": "ada"}] * count
    answer = await broker.http.post("/tokens/batch", json={"items": items})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body.items")


async def test_providers_are_listed_without_secrets(broker: Broker) -> None:
    answer = await broker.http.get("/providers")
    found = {provider["name"]: provider for provider in answer.json()["items"]}
    assert list(found) == sorted(found)
    assert (found["sandbox"]["registered"], found["google"]["registered"]) == (True, False)
    assert found["keeps"]["rotation"] == "never"
    assert "sandbox-secret" not in answer.text
    assert (await broker.http.get("/providers/sandbox")).json() == found["sandbox"]
    assert (await broker.http.get("/providers/nowhere")).json()["code"] == "unknown_provider"


async def test_what_is_due_is_refreshed_on_demand(broker: Broker, sandbox: Sandbox) -> None:
    for user in ("ada", "bob"):
        await broker.put(f"sandbox/{user}", bring(sandbox.grant(user)))
    sandbox.revoke("bob")
    answer = await broker.http.post("/refresh/run")
    assert answer.json() == {"due": 2, "refreshed": 1, "failed": 1, "postponed": 0}
