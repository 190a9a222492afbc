"""GET and DELETE /cache: what is kept, and away with it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.gateway.counts import Outcome
from tests.broker import Broker, heard
from tests.gateway.answering import Answering
from tests.gateway.calling import PROVIDER, call
from tests.gateway.keeping import api, broker, settings, twin

__all__ = ["api", "broker", "settings", "twin"]


async def filled(broker: Broker) -> None:
    """Two answers of ada's, one of bob's."""
    await heard(broker)
    for user, target in (("ada", "portfolio/1"), ("ada", "orders"), ("bob", "portfolio/1")):
        await call(broker, user, target)


async def key(broker: Broker, **rights: Any) -> dict[str, str]:
    made = await broker.http.post("/consumers", json={"name": "reports", "scopes": ["proxy"], **rights})
    shown = (await broker.http.post(f"/consumers/{made.json()['id']}/keys")).json()["key"]
    return {"Authorization": f"Bearer {shown}"}


async def test_it_tells_what_became_of_calls(broker: Broker) -> None:
    await filled(broker)
    await call(broker, "ada", "orders")
    await call(broker, "ada", "orders", "POST")
    told = (await broker.http.get("/cache")).json()
    assert told["replica"] == broker.services.replica
    assert 0 < told["bytes"] < told["max_bytes"]
    counts = {
        "entries": 2,
        "hits": 1,
        "misses": 3,
        "coalesced": 0,
        "revalidated": 0,
        "bypassed": 1,
        "evicted": 0,
    }
    assert told["providers"] == [{"provider": PROVIDER, **counts}]
    assert {name: told[name] for name in counts} == counts


async def test_the_metrics_tell_the_same(broker: Broker) -> None:
    await filled(broker)
    text = (await broker.http.get("/metrics")).text
    assert 'broker_proxy_cache_total{outcome="miss",provider="answering"}' in text
    assert "broker_proxy_cache_entries 3.0" in text


@pytest.mark.parametrize(
    ("query", "purged"),
    [
        ({}, 3),
        ({"provider": PROVIDER}, 3),
        ({"user_id": "ada"}, 2),
        ({"path": "/portfolio"}, 2),
        ({"path": "/portfolio/1", "user_id": "ada"}, 1),
        ({"path": "/port"}, 0),
        ({"account": "work"}, 0),
        ({"provider": "google"}, 0),
    ],
)
async def test_what_agrees_is_purged_and_on_record(
    broker: Broker, query: dict[str, str], purged: int
) -> None:
    await filled(broker)
    assert (await broker.http.delete("/cache", params=query)).json() == {"purged": purged}
    assert len(broker.services.answers) == 3 - purged
    [event] = (await broker.http.get("/audit", params={"action": "cache.purged"})).json()["items"]
    assert (event["actor"], event["user_id"]) == ("admin", query.get("user_id"))


async def test_other_replicas_purge_as_well(broker: Broker, twin: Broker) -> None:
    await filled(twin)
    assert (await broker.http.delete("/cache", params={"user_id": "ada"})).json() == {"purged": 0}
    async with asyncio.timeout(5):
        while (await twin.http.get("/cache")).json()["entries"] != 1:
            await asyncio.sleep(0.02)
    assert (await call(twin, "bob", "portfolio/1")).outcome is Outcome.HIT


async def test_who_may_call_for_a_user_may_purge_what_is_kept_of_him(broker: Broker) -> None:
    await filled(broker)
    header = await key(broker, users=["ada"])

    async def purge(**query: str) -> tuple[int, Any]:
        answer = await broker.http.delete("/cache", params=query, headers=header)
        return answer.status_code, answer.json().get("purged")

    assert await purge() == (403, None)
    assert await purge(provider=PROVIDER) == (403, None)
    assert await purge(user_id="ada") == (403, None)
    assert await purge(provider=PROVIDER, user_id="bob") == (200, 0)
    assert await purge(provider="nobody", user_id="ada") == (404, None)
    assert len(broker.services.answers) == 3
    assert await purge(provider=PROVIDER, user_id="ada", path="/orders") == (200, 1)
    assert await purge(provider=PROVIDER, user_id="ada") == (200, 1)
    assert len(broker.services.answers) == 1


@pytest.mark.parametrize("path", ["portfolio", "/a/../b", "/a?b=1", "/a/", ""])
async def test_a_path_that_is_none_is_refused(broker: Broker, path: str) -> None:
    answer = await broker.http.delete("/cache", params={"path": path})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "query.path")


async def test_what_is_under_way_at_a_purge_is_not_kept(broker: Broker, api: Answering) -> None:
    await heard(broker)
    api.shut()
    asking = asyncio.create_task(call(broker, "ada"))
    await api.arrived(1)
    await broker.http.delete("/cache")
    api.open()
    await asking
    assert len(broker.services.answers) == 0
