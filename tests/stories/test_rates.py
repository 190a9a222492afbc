"""A consumer's `rate`: how often it may ask."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.clock import SystemClock
from app.consumers.consumer import Consumer
from app.consumers.limits import RateLimiter
from app.db import Database
from app.errors import RateLimited
from app.resilience import Rate
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring
from tests.plans import statements

FEW = {"limit": 3, "per_seconds": 60}


async def key_of(broker: Broker, name: str = "reports", **body: Any) -> dict[str, str]:
    """The header of a new consumer, made over the API."""
    wanted = {"name": name, "scopes": ["tokens:read"], **body}
    created = await broker.http.post("/consumers", json=wanted)
    assert created.status_code == 201, created.text
    assert created.json()["rate"] == body.get("rate")
    key = await broker.http.post(f"/consumers/{created.json()['id']}/keys")
    return {"Authorization": f"Bearer {key.json()['key']}"}


async def ask(broker: Broker, headers: dict[str, str], path: str = "/tokens/sandbox/ada") -> httpx.Response:
    return await broker.http.get(path, headers=headers)


async def asked(broker: Broker, headers: dict[str, str], times: int, path: str = "/providers") -> list[int]:
    return [(await ask(broker, headers, path)).status_code for _ in range(times)]


async def test_the_request_beyond_the_rate_is_refused_and_told_when_to_come_back(
    broker: Broker, sandbox: Sandbox
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    headers = await key_of(broker, rate=FEW)
    assert await asked(broker, headers, 3, "/tokens/sandbox/ada") == [200, 200, 200]
    answer = await ask(broker, headers)
    problem = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (429, "application/problem+json")
    assert (problem["code"], problem["retryable"], problem["category"]) == (
        "rate_limited",
        True,
        "rate_limit",
    )
    assert 10 <= problem["retry_after"] == int(answer.headers["Retry-After"]) <= 20
    assert "3 times in 60 seconds" in problem["detail"]


async def test_nobody_else_is_affected(broker: Broker) -> None:
    few, others = await key_of(broker, rate=FEW), await key_of(broker, "others", rate=FEW)
    assert await asked(broker, few, 4) == [200, 200, 200, 429]
    assert await asked(broker, others, 3) == [200, 200, 200]
    assert (await broker.http.get("/providers")).status_code == 200


async def test_all_keys_of_a_consumer_share_its_rate(broker: Broker) -> None:
    body = {"name": "reports", "scopes": ["tokens:read"], "rate": FEW}
    consumer = (await broker.http.post("/consumers", json=body)).json()
    keys = [(await broker.http.post(f"/consumers/{consumer['id']}/keys")).json()["key"] for _ in range(2)]
    first, second = ({"Authorization": f"Bearer {key}"} for key in keys)
    assert await asked(broker, first, 2) == [200, 200]
    assert await asked(broker, second, 2) == [200, 429]


async def test_it_fills_again(broker: Broker) -> None:
    headers = await key_of(broker, rate={"limit": 5, "per_seconds": 5})
    answers = await asyncio.gather(*(ask(broker, headers, "/providers") for _ in range(30)))
    assert 429 in {answer.status_code for answer in answers}
    async with asyncio.timeout(5):
        while (await ask(broker, headers, "/providers")).status_code == 429:
            await asyncio.sleep(0.02)


async def test_of_many_at_once_as_many_as_the_limit_are_let_through(broker: Broker) -> None:
    headers = await key_of(broker, rate={"limit": 10, "per_seconds": 3600})
    answers = await asyncio.gather(*(ask(broker, headers, "/providers") for _ in range(30)))
    assert sorted(answer.status_code for answer in answers) == [200] * 10 + [429] * 20


async def test_an_admins_requests_are_counted_too(broker: Broker) -> None:
    headers = await key_of(broker, rate=FEW, scopes=["admin"])
    assert await asked(broker, headers, 4, "/breakers") == [200, 200, 200, 429]


async def test_requests_that_are_refused_for_another_reason_are_counted(broker: Broker) -> None:
    headers = await key_of(broker, rate=FEW)
    assert await asked(broker, headers, 4, "/breakers") == [403, 403, 403, 429]


async def test_a_wrong_secret_takes_nothing_from_the_right_one(broker: Broker) -> None:
    headers = await key_of(broker, rate=FEW)
    wrong = {"Authorization": headers["Authorization"][:-64] + "0" * 64}
    assert await asked(broker, wrong, 5) == [401] * 5
    assert await asked(broker, headers, 3) == [200] * 3


async def test_without_a_rate_there_is_no_limit(broker: Broker) -> None:
    for name, body in (("a", {}), ("b", {"rate": None})):
        headers = await key_of(broker, name, **body)
        answers = await asyncio.gather(*(ask(broker, headers, "/providers") for _ in range(30)))
        assert {answer.status_code for answer in answers} == {200}


async def test_replicas_share_it(broker: Broker, twin: Broker) -> None:
    headers = await key_of(broker, rate=FEW)
    assert await asked(broker, headers, 2) == [200, 200]
    assert await asked(twin, headers, 2) == [200, 429]
    assert await asked(broker, headers, 1) == [429]


async def test_of_many_at_once_at_two_replicas_as_many_as_the_limit_are_let_through(
    broker: Broker, twin: Broker
) -> None:
    headers = await key_of(broker, rate={"limit": 100, "per_seconds": 86400})
    answers = await asyncio.gather(
        *(ask(replica, headers, "/providers") for _ in range(80) for replica in (broker, twin))
    )
    admitted = [answer.status_code for answer in answers].count(200)
    assert 90 <= admitted <= 100  # a share that one of them has left is the other one's loss, for now


async def test_while_postgres_is_away_each_replica_counts_for_itself() -> None:
    db = Database("postgresql+asyncpg://nobody@127.0.0.1:1/none", pool_size=1)
    limiter = RateLimiter(db, SystemClock())
    consumer = Consumer(uuid4(), "reports", frozenset(), rate=Rate(3, 86400))
    for _ in range(3):
        await limiter.admit(consumer)
    with pytest.raises(RateLimited) as refused:
        await limiter.admit(consumer)
    assert refused.value.retry_after is not None and refused.value.retry_after > 20000
    await limiter.close()
    await db.close()


async def test_far_from_the_limit_a_request_costs_no_sql(broker: Broker) -> None:
    headers = await key_of(broker, rate={"limit": 2000, "per_seconds": 60})
    with statements() as seen:
        assert await asked(broker, headers, 200) == [200] * 200
    taken = [statement for statement in seen if "rate_limits" in statement[0]]
    assert len(taken) <= 2 * (
        1 + 200 // 50
    )  # two statements for a share of 100, of which half is used up first


async def test_who_keeps_asking_in_vain_costs_no_sql(broker: Broker) -> None:
    headers = await key_of(broker, rate={"limit": 1, "per_seconds": 86400})
    assert await asked(broker, headers, 2) == [200, 429]
    with statements() as seen:
        assert await asked(broker, headers, 50) == [429] * 50
    assert not [statement for statement in seen if "rate_limits" in statement[0]]


async def test_operations_need_no_key_and_have_no_rate(broker: Broker) -> None:
    headers = await key_of(broker, rate={"limit": 1, "per_seconds": 86400})
    assert await asked(broker, headers, 2) == [200, 429]
    assert (await ask(broker, headers, "/health-check/live")).status_code == 204
    assert (await ask(broker, headers, "/health-check")).status_code == 200


WRONG: list[tuple[object, str]] = [
    ({"limit": 0, "per_seconds": 60}, "body.rate.limit"),
    ({"limit": -1, "per_seconds": 60}, "body.rate.limit"),
    ({"limit": 1.5, "per_seconds": 60}, "body.rate.limit"),
    ({"limit": "3", "per_seconds": 60}, "body.rate.limit"),
    ({"limit": True, "per_seconds": 60}, "body.rate.limit"),
    ({"limit": None, "per_seconds": 60}, "body.rate.limit"),
    ({"limit": 1_000_001, "per_seconds": 60}, "body.rate.limit"),
    ({"limit": 10**30, "per_seconds": 60}, "body.rate.limit"),
    ({"per_seconds": 60}, "body.rate.limit"),
    ({"limit": 3}, "body.rate.per_seconds"),
    ({"limit": 3, "per_seconds": 0}, "body.rate.per_seconds"),
    ({"limit": 3, "per_seconds": 86401}, "body.rate.per_seconds"),
    ({"limit": 3, "per_seconds": 60, "burst": 9}, "body.rate.burst"),
    (3, "body.rate"),
    ([3, 60], "body.rate"),
    ("3/60", "body.rate"),
]


async def test_a_wrong_rate_is_refused_by_field(broker: Broker) -> None:
    for rate, field in WRONG:
        body = {"name": "reports", "scopes": ["tokens:read"], "rate": rate}
        answer = await broker.http.post("/consumers", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field), rate
