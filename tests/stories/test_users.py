"""A user's connections together: their health, and renewing them at once."""

from __future__ import annotations

from typing import Any

from app.sandbox.server import Sandbox
from tests.broker import Broker, bring


async def _health(broker: Broker, path: str, **query: Any) -> dict[str, Any]:
    answer = await broker.http.get(path, params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def _bring_all_sorts(broker: Broker, sandbox: Sandbox) -> None:
    """Five accounts of ada: fresh, expired, refused, without a refresh token but valid, and such a one expired."""
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600), account="fresh")
    await broker.put("sandbox/ada", bring(sandbox.grant("expired")), account="expired")
    await broker.put("sandbox/ada", bring(sandbox.grant("refused")), account="refused")
    await broker.put("sandbox/ada", {"access_token": "at", "expires_in": 30}, account="valid")
    await broker.put("sandbox/ada", bring({"access_token": "at"}), account="over")
    sandbox.revoke("refused")


async def test_all_tokens_of_a_user_are_renewed_where_they_need_it(broker: Broker, sandbox: Sandbox) -> None:
    await _bring_all_sorts(broker, sandbox)
    answer = (await broker.http.post("/oauth/sandbox/refresh-tokens", json={"user_id": "ada"})).json()
    assert {item["account"]: item["outcome"] for item in answer["items"]} == {
        "fresh": "fresh",
        "expired": "refreshed",
        "refused": "reconnect_required",
        "valid": "skipped",
        "over": "reconnect_required",
    }
    assert (answer["refreshed"], answer["failed"]) == (1, 2)
    problems = {item["account"]: item["problem"] and item["problem"]["code"] for item in answer["items"]}
    assert problems["refused"] == "reconnect_required"
    assert sandbox.report()["hits"]["token"] == 2


async def test_a_provider_in_trouble_fails_each_grant_by_name(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(faults=[{"kind": "status", "status": 503, "times": -1}])
    answer = (await broker.http.post("/oauth/sandbox/refresh-tokens", json={"user_id": "ada"})).json()
    assert (answer["items"][0]["outcome"], answer["items"][0]["problem"]["code"]) == (
        "failed",
        "provider_unavailable",
    )
    health = await _health(broker, "/oauth/sandbox/health-check", user_id="ada")
    assert (health["overall"], health["items"][0]["health"]) == ("degraded", "failing")
    assert "fails" in health["items"][0]["message"]


async def test_health_tells_each_connection_in_a_sentence(broker: Broker, sandbox: Sandbox) -> None:
    await _bring_all_sorts(broker, sandbox)
    health = await _health(broker, "/oauth/sandbox/health-check", user_id="ada")
    told = {item["grant"]["account"]: (item["health"], item["message"]) for item in health["items"]}
    assert told["fresh"] == ("healthy", "The connection to sandbox works.")
    assert told["expired"][0] == "expired" and "renewed when it is next needed" in told["expired"][1]
    assert told["valid"][0] == "expiring_soon" and "cannot be renewed" in told["valid"][1]
    assert told["over"][0] == "expired" and "connect your account again" in told["over"][1]
    assert health["overall"] == "unhealthy"


async def test_a_users_health_goes_over_all_providers(broker: Broker, sandbox: Sandbox) -> None:
    for path in ("sandbox/ada", "keeps/ada", "sandbox/bob"):
        await broker.put(path, bring(sandbox.grant("ada"), expires_in=3600))
    health = await _health(broker, "/users/ada/health-check")
    assert [item["grant"]["provider"] for item in health["items"]] == ["sandbox", "keeps"]
    assert health["overall"] == "healthy"
    assert await _health(broker, "/users/nobody/health-check") == {"items": [], "overall": "healthy"}


async def test_a_user_without_a_connection_is_not_found_at_a_provider(broker: Broker) -> None:
    answers = [
        await broker.http.get("/oauth/sandbox/health-check", params={"user_id": "nobody"}),
        await broker.http.post("/oauth/sandbox/refresh-tokens", json={"user_id": "nobody"}),
    ]
    assert [answer.json()["code"] for answer in answers] == ["grant_not_found", "grant_not_found"]
