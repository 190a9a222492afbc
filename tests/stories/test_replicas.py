"""Several processes of the service on one database: one refresh, whoever asks; nothing lost when one of them goes."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx

from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, Replica, Replicas, bring

HEADERS = {"Authorization": f"Bearer {ADMIN_KEY}"}


async def _put(replica: Replica, tokens: dict[str, Any]) -> None:
    async with httpx.AsyncClient(headers=HEADERS, base_url=replica.url) as http:
        (await http.put("/grants/sandbox/ada", json=tokens)).raise_for_status()


async def _fetch_often(replica: Replica, times: int) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=times)
    async with httpx.AsyncClient(headers=HEADERS, base_url=replica.url, limits=limits, timeout=30) as http:
        return await asyncio.gather(*(http.get("/tokens/sandbox/ada") for _ in range(times)))


async def test_two_processes_and_two_hundred_callers_cause_one_refresh(
    replicas: Replicas, sandbox: Sandbox
) -> None:
    both = [replicas.start(), replicas.start()]
    for round_number in range(1, 4):
        await _put(both[0], bring(sandbox.grant("ada")))
        sandbox.control(settings={"delay": 0.2}, reset_counters=True)
        answers = [
            answer
            for batch in await asyncio.gather(*(_fetch_often(r, 100) for r in both))
            for answer in batch
        ]
        assert Counter(answer.status_code for answer in answers) == {200: 200}, round_number
        assert len({answer.json()["access_token"] for answer in answers}) == 1
        report = sandbox.report()
        assert (report["refreshes"], report["hits"]["token"], report["max_in_flight"]) == (1, 1, 1)


async def test_a_replica_that_is_told_to_stop_ends_its_refresh_first(
    replicas: Replicas, sandbox: Sandbox
) -> None:
    leaving, staying = replicas.start(), replicas.start()
    await _put(leaving, bring(sandbox.grant("ada")))
    sandbox.control(settings={"delay": 1.0})
    asking = asyncio.create_task(_fetch_often(leaving, 1))
    await asyncio.sleep(0.4)
    leaving.terminate()
    [answer] = await asking
    assert (answer.status_code, answer.json()["generation"]) == (200, 2)
    assert await asyncio.to_thread(leaving.wait) == 0
    [after] = await _fetch_often(staying, 1)
    assert after.json()["access_token"] == answer.json()["access_token"]
    assert sandbox.report()["refreshes"] == 1


async def test_a_refresh_that_nobody_waits_for_any_more_is_ended_before_the_process_is(
    replicas: Replicas, sandbox: Sandbox
) -> None:
    leaving, staying = replicas.start(), replicas.start()
    await _put(leaving, bring(sandbox.grant("ada")))
    sandbox.control(settings={"delay": 1.0})
    async with httpx.AsyncClient(headers=HEADERS, base_url=leaving.url) as http:
        asking = asyncio.create_task(http.get("/tokens/sandbox/ada"))
        await asyncio.sleep(0.4)
        asking.cancel()
    leaving.terminate()
    assert await asyncio.to_thread(leaving.wait) == 0
    sandbox.control(settings={"delay": 0.0})
    [after] = await _fetch_often(staying, 1)
    assert (after.json()["generation"], after.json()["refreshed"]) == (2, False)
    assert sandbox.report()["refreshes"] == 1
