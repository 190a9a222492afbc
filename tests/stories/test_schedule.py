"""The proactive refresh: what is due is refreshed once, shared between replicas, and nobody is starved."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from app.grants.schedule import Tally
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring, settings_for

WITHIN = timedelta(seconds=300)


async def _bring_many(broker: Broker, sandbox: Sandbox, count: int, *, expires_in: int = -1) -> None:
    for number in range(count):
        user = f"user-{number}"
        await broker.put(f"sandbox/{user}", bring(sandbox.grant(user), expires_in=expires_in))


async def test_what_is_due_is_refreshed_and_then_no_longer_due(broker: Broker, sandbox: Sandbox) -> None:
    await _bring_many(broker, sandbox, 20)
    first = await broker.services.due.run(within=WITHIN)
    second = await broker.services.due.run(within=timedelta(0))
    assert first == Tally(due=20, refreshed=20)
    assert second == Tally()


async def test_two_replicas_share_the_work_without_doing_any_of_it_twice(
    broker: Broker, twin: Broker, sandbox: Sandbox
) -> None:
    await _bring_many(broker, sandbox, 60)
    sandbox.control(settings={"delay": 0.05})
    tallies = await asyncio.gather(*(replica.services.due.run(within=WITHIN) for replica in (broker, twin)))
    assert sum(tally.refreshed for tally in tallies) == 60
    assert set(sandbox.report()["refreshes_by_user"].values()) == {1}
    assert sandbox.report()["reuse_detected"] == 0


async def test_a_token_in_the_first_half_of_its_life_is_left_alone(broker: Broker, sandbox: Sandbox) -> None:
    await _bring_many(broker, sandbox, 1)
    await broker.token("sandbox/user-0")
    tally = await broker.services.due.run(within=timedelta(hours=24))
    assert tally == Tally()


async def test_one_failing_grant_stops_nobody_and_is_tried_once_a_tick(
    broker: Broker, sandbox: Sandbox
) -> None:
    await _bring_many(broker, sandbox, 10)
    refusal = {"kind": "status", "status": 400, "body": {"error": "odd"}, "user": "user-3", "times": -1}
    sandbox.control(faults=[refusal])
    tally = await broker.services.due.run(within=WITHIN)
    assert tally == Tally(due=10, refreshed=9, failed=1)
    assert sandbox.report()["hits"]["token"] == 9 + 3


async def test_an_open_breaker_postpones_without_touching_the_provider(
    broker: Broker, sandbox: Sandbox
) -> None:
    await _bring_many(broker, sandbox, 6)
    sandbox.control(faults=[{"kind": "drop", "times": -1}])
    for number in range(3):
        await broker.http.get(f"/tokens/sandbox/user-{number}")
    hits = sandbox.report()["hits"]["token"]
    assert await broker.services.due.run(within=WITHIN) == Tally()
    assert sandbox.report()["hits"]["token"] == hits


async def test_the_first_tick_comes_right_at_the_start(
    broker: Broker, sandbox: Sandbox, database_url: str, providers_dir: Path, tmp_path: Path
) -> None:
    await _bring_many(broker, sandbox, 3)
    settings = settings_for(
        database_url, providers_dir, data_dir=tmp_path / "var", refresh_interval_seconds=300
    )
    async with Broker.running(settings), asyncio.timeout(5):
        while sandbox.report()["refreshes"] < 3:
            await asyncio.sleep(0.02)


async def test_shutting_down_waits_for_the_refreshes_under_way(
    broker: Broker, sandbox: Sandbox, database_url: str, providers_dir: Path, tmp_path: Path
) -> None:
    settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var")
    async with Broker.running(settings) as leaving:
        await _bring_many(leaving, sandbox, 1)  # after its first tick, which would have refreshed it
        sandbox.control(settings={"delay": 0.5})
        asking = asyncio.create_task(leaving.http.get("/tokens/sandbox/user-0"))
        async with asyncio.timeout(10):
            while sandbox.report()["refreshes"] == 0:
                await asyncio.sleep(0.01)
    assert (await asking).json()["generation"] == 2
    assert (await broker.token("sandbox/user-0"))["generation"] == 2
    assert sandbox.report()["refreshes"] == 1
