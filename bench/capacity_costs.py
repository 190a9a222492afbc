"""Costs that `python -m bench` does not tell: what is done at ease, heard, sealed and noted, and the bytes of rows."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping

import asyncpg
import httpx

from app.clock import SystemClock
from app.db import Database
from app.grants import store
from bench.accounting import cpu_seconds
from bench.capacity_meter import WAL, Meter, Used
from bench.grants import PROVIDER, bring_due_ones, bring_fresh, execute, fetched
from bench.load import Load
from bench.stage import Stage, port_of
from tests.broker import ADMIN_KEY, Replica

_UNCHAINED = "SELECT count(*) FROM audit_unchained"
_EVENTS = (
    "INSERT INTO audit_events (id, actor, action, provider, user_id, grant_id, details)"
    " SELECT uuidv7(), 'bench', 'token.disclosed', 'graced', 'user-' || number, gen_random_uuid(),"
    """ '{"count": 1, "first_at": "2026-01-01T00:00:00+00:00", "last_at": "2026-01-01T00:00:00+00:00"}'"""
    " FROM generate_series(1, 1000) AS number"
)
_NOTIFY = "SELECT pg_notify('broker_grant_changed', gen_random_uuid()::text) FROM generate_series(1, 100)"
_SIZE = "SELECT pg_total_relation_size('{0}') / greatest(1, (SELECT count(*) FROM {0}))"


def measured_costs(
    stage: Stage, replica: Replica, headers: Mapping[str, str], meter: Meter, idle: Used
) -> Mapping[str, float]:
    """By their names in `Costs`; `idle` is what is used in a second in which nothing happens. Ends the replica."""
    sealed = _sealed(stage, meter, idle)
    costs = {
        **sealed,
        **_fetched_at_ease(stage, meter, idle, port_of(replica), headers, sealed),
        **_heard(stage, meter, idle, replica, headers),
        **_used(stage),
        **_bytes(stage.url),
    }
    stage.end(replica)
    return {
        **costs,
        **_refreshed_at_ease(stage, idle),
        "idle_cpu": idle.cpu,
        "idle_postgres": idle.postgres,
    }


def refresh_due(replica: Replica, grants: int) -> float:
    """Seconds. Raises RuntimeError unless each was refreshed."""
    began = time.monotonic()
    with httpx.Client(headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=600) as http:
        tally = http.post(f"{replica.url}/refresh/run").raise_for_status().json()
    if tally["refreshed"] != grants:
        raise RuntimeError(f"{grants} grants were due, and this became of them: {tally}")
    return time.monotonic() - began


def _fetched_at_ease(
    stage: Stage,
    meter: Meter,
    idle: Used,
    port: int,
    headers: Mapping[str, str],
    sealed: Mapping[str, float],
) -> Mapping[str, float]:
    """So few that most wake the service: what a fetch costs while there is little else to do. Until all that it leaves behind
    is written; its event is told by itself."""

    def cost(path: str, rate: float, users: int) -> Used:
        load = Load(port, path, headers=headers, seconds=5.0, rate=rate, first=10_000, users=10_000 + users)
        began = time.monotonic()

        def fetch() -> None:
            stage.driver.send(load)
            time.sleep(7)

        used = meter.of(fetch)
        took, number = time.monotonic() - began, rate * 5.0
        return Used(
            (used.cpu - idle.cpu * took) / number,
            (used.postgres - idle.postgres * took) / number,
            used.statements / number - idle.statements * took / number,
            used.commits / number,
            used.wal / number,
        )

    bring_fresh(stage.url, [f"cold-{10_000 + number}" for number in range(500)])
    hot = cost(f"/tokens/{PROVIDER}/hot-0", 200.0, 1)
    cold = cost(f"/tokens/{PROVIDER}/cold-{{}}", 100.0, 500)
    return {
        "hot_cpu_at_ease": hot.cpu,
        "cold_cpu_at_ease": cold.cpu - sealed["sealed_cpu"],
        "cold_statements": cold.statements,
        "cold_postgres_at_ease": cold.postgres - sealed["sealed_postgres"],
    }


def _refreshed_at_ease(stage: Stage, idle: Used) -> Mapping[str, float]:
    """Few at once."""
    replica, number = stage.service(refresh_concurrency="24"), 480
    meter, took = Meter(stage, replica), [0.0]
    bring_due_ones(stage.url, [f"eased-{number}" for number in range(16)])
    refresh_due(replica, 16)
    bring_due_ones(stage.url, [f"at-ease-{number}" for number in range(number)])

    def work() -> None:
        took[0] = refresh_due(replica, number) + 2
        time.sleep(2)  # their events are chained

    used = meter.of(work)
    stage.end(replica)
    return {
        "refresh_cpu_at_ease": (used.cpu - idle.cpu * took[0]) / number,
        "refresh_postgres_at_ease": (used.postgres - idle.postgres * took[0]) / number,
    }


def _heard(
    stage: Stage, meter: Meter, idle: Used, replica: Replica, headers: Mapping[str, str]
) -> Mapping[str, float]:
    """A hundred at once, and a fetch now and then, since only who is asked takes notice of them."""
    number, took = 10_000, [0.0]

    async def tell() -> None:
        connection, began = await asyncpg.connect(stage.url), time.monotonic()
        try:
            async with httpx.AsyncClient(headers=headers) as http:
                for batch in range(number // 100):
                    await connection.execute(_NOTIFY)
                    if batch % 20 == 0:
                        await http.get(f"{replica.url}/tokens/{PROVIDER}/hot-0")
                    await asyncio.sleep(0.005)
            took[0] = time.monotonic() - began
        finally:
            await connection.close()

    # The account of who told them ended with its connection, so it is not in the difference: that is who listens.
    cpu, postgres = [], []
    for _ in range(5):
        used = meter.of(lambda: asyncio.run(tell()))
        cpu.append(max(0.0, used.cpu - idle.cpu * took[0]) / number)
        postgres.append(max(0.0, used.postgres - idle.postgres * took[0]) / number)
    return {"heard_cpu": statistics.median(cpu), "heard_postgres": statistics.median(postgres)}


def _sealed(stage: Stage, meter: Meter, idle: Used) -> Mapping[str, float]:
    batches, took, spent = 10, [0.0], [0.0]

    async def write() -> None:
        connection = await asyncpg.connect(stage.url)
        try:
            for _ in range(batches):
                await connection.execute(_EVENTS)
            spent[0] = cpu_seconds([connection.get_server_pid()])
        finally:
            await connection.close()

    def until_chained() -> None:
        began = time.monotonic()
        asyncio.run(write())
        while fetched(stage.url, _UNCHAINED):
            time.sleep(0.1)
        took[0] = time.monotonic() - began

    used = meter.of(until_chained)
    number = 1000 * batches
    return {
        "sealed_cpu": max(0.0, used.cpu - idle.cpu * took[0]) / number,
        "sealed_postgres": (spent[0] + max(0.0, used.postgres - idle.postgres * took[0])) / number,
        "sealed_wal": used.wal / number,
    }


def _used(stage: Stage) -> Mapping[str, float]:
    """By the service's own statement, of grants that were used before."""
    number, spent, wal = 1000, [0.0], [0.0]

    async def note() -> None:
        clock = SystemClock()
        db = Database(stage.url.replace("postgresql:", "postgresql+asyncpg:"), pool_size=1)
        connection = await asyncpg.connect(stage.url)
        try:
            ids = [row["id"] for row in await connection.fetch(f"SELECT id FROM grants LIMIT {number}")]
            async with db.begin() as tx:  # no page's first change, and a plan that is made
                await store.note_uses(tx, dict.fromkeys(ids, clock.now()))
            before, at = stage.postgres_seconds(), await connection.fetchval(WAL)
            for _ in range(5):
                async with db.begin() as tx:
                    await store.note_uses(tx, dict.fromkeys(ids, clock.now()))
            spent[0], wal[0] = stage.postgres_seconds() - before, await connection.fetchval(WAL) - at
        finally:
            await connection.close()
            await db.close()

    asyncio.run(note())
    return {"used_postgres": spent[0] / number / 5, "used_wal": wal[0] / number / 5}


def _bytes(url: str) -> Mapping[str, float]:
    asyncio.run(execute(url, "VACUUM grants"))
    size = {
        name: fetched(url, _SIZE.format(name))
        for name in ("grants", "refresh_attempts", "audit_events", "audit_chain")
    }
    return {
        "grant_bytes": size["grants"],
        "attempt_bytes": size["refresh_attempts"],
        "event_bytes": size["audit_events"] + size["audit_chain"],
    }
