"""A measured point, for the capacity model to be compared with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench.accounting import waited_seconds
from bench.capacity_costs import measured_costs, refresh_due
from bench.capacity_meter import Meter, Used
from bench.grants import PROVIDER, bring_due_ones, bring_fresh, execute
from bench.load import Load
from bench.stage import Driver, Stage, port_of
from tests.broker import Replica

_WARM = 1000


@dataclass(frozen=True)
class Point:
    """A load that is known: grants due at once, and fetches at a steady rate beside them, of one token and of tokens that
    nobody has asked for."""

    due: int = 1200
    concurrency: int = 64
    provider_seconds: float = 0.5
    seconds: float = 20.0
    hot_a_second: int = 300
    cold_a_second: int = 150


@dataclass(frozen=True)
class Measured:
    """`refresh_seconds`: until the last of those that were due. `given`: of the time in which the service had something to do,
    how much it had a processor; the machine's other work had them for the rest."""

    used: Used
    refresh_seconds: float
    given: float


def measure(stage: Stage, point: Point) -> tuple[Measured, Used, Mapping[str, float]]:
    """The point, what the service uses in a second in which nothing happens, and what `Costs` wants besides."""
    stage.provider(delay=point.provider_seconds)
    replica = stage.service()
    headers = stage.consumer(replica, "capacity")
    asyncio.run(execute(stage.url, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements"))
    cold = round(point.cold_a_second * point.seconds)
    bring_fresh(stage.url, ["hot-0", *(f"cold-{number}" for number in range(cold))])
    # No page's first change after a checkpoint: that one writes the whole page.
    asyncio.run(execute(stage.url, "UPDATE grants SET last_used_at = now()"))
    bring_due_ones(stage.url, [f"warm-{number}" for number in range(_WARM)])
    refresh_due(replica, _WARM)
    path = f"/tokens/{PROVIDER}/warm-{{}}"
    stage.driver.send(Load(port_of(replica), path, headers=headers, seconds=60, most=_WARM, users=_WARM))
    meter = Meter(stage, replica)
    time.sleep(6)  # what was noted is written
    idle = meter.of(lambda: time.sleep(6)).over(6)
    bring_due_ones(stage.url, [f"due-{number}" for number in range(point.due)])
    measured = _at(point, meter, stage, replica, headers, cold)
    return measured, idle, measured_costs(stage, replica, headers, meter, idle)


def _at(
    point: Point, meter: Meter, stage: Stage, replica: Replica, headers: Mapping[str, str], cold: int
) -> Measured:
    path, port, second = f"/tokens/{PROVIDER}/hot-0", port_of(replica), Driver()
    hot = Load(port, path, headers=headers, seconds=point.seconds, rate=float(point.hot_a_second))
    path = f"/tokens/{PROVIDER}/cold-{{}}"
    rate = float(point.cold_a_second)
    each_once = Load(port, path, headers=headers, seconds=point.seconds, rate=rate, users=cold)
    waited = waited_seconds(replica.process.pid)
    try:
        with ThreadPoolExecutor(3) as threads, meter.running():
            until = time.monotonic() + point.seconds
            loads = [threads.submit(stage.driver.send, hot), threads.submit(second.send, each_once)]
            took = threads.submit(refresh_due, replica, point.due).result()
            for load in loads:
                load.result()
            time.sleep(max(0.0, until - time.monotonic()))
    finally:
        second.close()
    assert meter.used is not None
    given = meter.used.cpu / (meter.used.cpu + waited_seconds(replica.process.pid) - waited)
    return Measured(meter.used, took, given)
