"""The gateway's lane: a hit that it gives is the one that the route gives, with the same rights, limits and traces."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.lane import settle
from app.api.lane_proxy import ProxyLane
from app.audit.disclosures import AggregatedDisclosures
from app.consumers import authenticate
from app.gateway.counts import Outcome
from app.metrics import PROXIED, REQUESTS
from tests.broker import ADMIN_KEY, Broker, Replicas, heard, write_providers
from tests.gateway.answering import Answering
from tests.gateway.calling import PROVIDER, connect
from tests.gateway.keeping import RESOURCES, api, broker, settings

__all__ = ["api", "broker", "settings"]
PATH = f"/proxy/{PROVIDER}/ada/portfolio"
ROUTED = {"If-None-Match": '"other"'}  # which the lane leaves to the route


@pytest.fixture(autouse=True)
def _keys_are_known_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authenticate, "_CACHE_SECONDS", 60.0)


@pytest.fixture
def lanes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that the lane answered."""
    answered, answers = [], ProxyLane.answers

    async def noted(self: ProxyLane, scope: Any, send: Any) -> bool:
        is_answered = await answers(self, scope, send)
        if is_answered:
            answered.append(scope["path"])
        return is_answered

    monkeypatch.setattr(ProxyLane, "answers", noted)
    return answered


async def get(broker: Broker, path: str = PATH, **headers: str) -> httpx.Response:
    return await broker.http.get(path, headers=headers)


async def settled(broker: Broker, path: str = PATH) -> None:
    """Until it is a hit: what this replica announced has come back to it."""
    await heard(broker)
    async with asyncio.timeout(10):
        while (await get(broker, path)).headers["x-broker-cache"] != "hit":
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)


def alike(answer: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    """All of it but what differs from moment to moment."""
    named = [
        (name, value) for name, value in answer.headers.multi_items() if name not in ("x-request-id", "age")
    ]
    return answer.status_code, answer.content, named


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
@pytest.mark.parametrize("more", ["", "?page=2&x=%20", "/sub%20path/1"])
async def test_it_answers_what_the_route_answers(
    broker: Broker, lanes: list[str], prefix: str, more: str
) -> None:
    path = f"{prefix}{PATH}{more}"
    await settled(broker, path)
    lanes.clear()
    fast, again, slow = await get(broker, path), await get(broker, path), await get(broker, path, **ROUTED)
    assert len(lanes) == 2
    assert alike(fast) == alike(again) == alike(slow)
    assert [each.headers["x-broker-attempts"] for each in (fast, slow)] == ["0", "0"]
    assert [each.headers["x-broker-cache"] for each in (fast, slow)] == ["hit", "hit"]
    assert all(each.headers["age"].isdigit() for each in (fast, slow))


async def test_what_is_told_of_it_is_what_the_route_tells(
    broker: Broker, lanes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await settled(broker)
    given: list[Any] = []
    monkeypatch.setattr(
        AggregatedDisclosures,
        "were_given",
        lambda self, disclosure, *, times, request_id: given.append((disclosure, times)),
    )
    labels = ("GET", "/proxy/{provider}/{user_id}/{path}", "200")
    told = []
    for headers in ({}, ROUTED):
        settle(broker.app)
        before = counted(broker, labels)
        lanes.clear()
        given.clear()
        await get(broker, **headers)
        settle(broker.app)
        rises = [now - then for now, then in zip(counted(broker, labels), before, strict=True)]
        told.append((bool(lanes), rises, list(given)))
    (_, rises, disclosed), slow = told
    assert [is_fast for is_fast, _, _ in told] == [True, False]
    assert slow[1:] == (rises, disclosed)
    assert (rises, [times for _, times in disclosed]) == ([1, 1, 1], [1])
    assert disclosed[0][0].action == "token.used"


async def test_a_header_that_is_no_ascii_is_the_same_to_it(
    broker: Broker, lanes: list[str], api: Answering
) -> None:
    async def asked(value: bytes) -> httpx.Response:
        return await broker.http.get(PATH, headers=[(b"x-name", value)])

    await settled(broker)
    for _ in range(3):
        assert (await asked("café".encode())).status_code == 200
    assert len(lanes) >= 2
    assert api.last.get("X-Name") == "café"
    answer = await asked(b"caf\xe9")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "header.x-name")


def counted(broker: Broker, labels: tuple[str, ...]) -> list[float]:
    return [
        REQUESTS.labels(*labels)._value.get(),
        PROXIED.labels(PROVIDER, "2xx")._value.get(),
        broker.services.answers.counts.of(PROVIDER, Outcome.HIT),
    ]


@pytest.mark.parametrize(
    "rights",
    [
        {"scopes": ["tokens:read"]},
        {"scopes": ["proxy"], "providers": ["elsewhere"]},
        {"scopes": ["proxy"], "users": ["bob"]},
    ],
)
async def test_what_the_route_refuses_it_does_not_answer(
    broker: Broker, lanes: list[str], rights: dict[str, Any]
) -> None:
    await settled(broker)
    consumer = (await broker.http.post("/consumers", json={"name": "reports", **rights})).json()["id"]
    key = (await broker.http.post(f"/consumers/{consumer}/keys")).json()["key"]
    lanes.clear()
    for _ in range(3):
        answer = await get(broker, Authorization=f"Bearer {key}")
        assert answer.status_code in (403, 404)
    assert lanes == []


async def test_rights_that_are_lost_are_lost_at_once(broker: Broker, lanes: list[str]) -> None:
    await settled(broker)
    made = await broker.http.post("/consumers", json={"name": "reports", "scopes": ["proxy"]})
    consumer = made.json()["id"]
    key = (await broker.http.post(f"/consumers/{consumer}/keys")).json()
    header = {"Authorization": f"Bearer {key['key']}"}
    assert (await get(broker, **header)).headers["x-broker-cache"] == "hit"
    lanes.clear()
    assert (await get(broker, **header)).status_code == 200
    assert lanes
    await broker.http.delete(f"/consumers/{consumer}/keys/{key['id']}")
    assert (await get(broker, **header)).status_code == 401


async def test_a_rate_is_kept_to(broker: Broker) -> None:
    await settled(broker)
    rights = {"name": "reports", "scopes": ["proxy"], "rate": {"limit": 5, "per_seconds": 60}}
    consumer = (await broker.http.post("/consumers", json=rights)).json()["id"]
    key = (await broker.http.post(f"/consumers/{consumer}/keys")).json()["key"]
    statuses = [(await get(broker, Authorization=f"Bearer {key}")).status_code for _ in range(8)]
    assert statuses == [200] * 5 + [429] * 3


async def test_a_hit_ends_with_the_grant_the_write_and_the_registration(
    broker: Broker, api: Answering, lanes: list[str]
) -> None:
    await settled(broker)
    await broker.http.post(PATH, json={})
    assert (await get(broker)).json()["version"] == 1
    await settled(broker)
    await connect(broker, "ada", token="eve")
    assert (await get(broker)).json()["user"] == "eve"
    await settled(broker)
    body = {"client_id": "us", "client_secret": "a-secret", "resources": {"/portfolio": 0}}
    await broker.http.put(f"/clients/{PROVIDER}", json=body)
    assert (await get(broker)).headers["x-broker-cache"] == "miss"
    await broker.http.delete(f"/grants/{PROVIDER}/ada")
    assert (await get(broker)).status_code == 404


async def test_over_a_socket_it_is_the_same_answer(api: Answering, database_url: str, tmp_path: Path) -> None:
    folder = write_providers(tmp_path / "providers", api.url)
    (folder / "answering.yaml").write_text(api.entry)
    replicas = Replicas(database_url, folder, tmp_path)
    registered = {
        "clients__answering__client_id": "us",
        "clients__answering__client_secret": "a-secret",
        "clients__answering__resources": json.dumps(RESOURCES),
    }
    try:
        replica = replicas.start(environment=None, by=(), **registered)
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        async with httpx.AsyncClient(base_url=replica.url, headers=headers) as http:
            for user in ("ada", "bob"):
                tokens = {"access_token": f"token-of-{user}", "expires_in": 3600}
                (await http.put(f"/grants/{PROVIDER}/{user}", json=tokens)).raise_for_status()
            async with asyncio.timeout(10):
                while (await http.get(PATH)).headers["x-broker-cache"] != "hit":
                    await asyncio.sleep(0.05)
            fast = [await http.get(PATH) for _ in range(5)]
            slow = await http.get(PATH, headers=ROUTED)
            bob = [(await http.get(PATH.replace("ada", "bob"))).json()["user"] for _ in range(3)]
    finally:
        replicas.stop()
    assert {sorted_alike(each) for each in fast} == {sorted_alike(slow)}
    ids = {each.headers["x-request-id"] for each in fast}
    assert len(ids) == 5 and all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)
    assert (fast[0].json()["user"], bob) == ("ada", ["bob"] * 3)


def sorted_alike(answer: httpx.Response) -> tuple[int, bytes, tuple[tuple[str, str], ...]]:
    """The server has its own fields at another place."""
    status, body, fields = alike(answer)
    return status, body, tuple(sorted(each for each in fields if each[0] != "date"))
