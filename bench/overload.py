"""Ten times as many requests as the service can answer: how many it answers all the same, and how soon it is well again.

peak        closed loop, many connections: as many as it can answer
rest        open loop, a tenth of that: what the median latency is
overload    open loop, ten times the peak, by more callers than the service lets in; who finds no connection gives up
afterwards  a tenth of the peak again: since when the median latency is what it was
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import httpx

from bench.accounting import cpu_seconds
from bench.load import Load, Outcome
from bench.stage import Stage, port_of
from tests.broker import Replica

FACTOR = 10
AS_BEFORE = 2.0  # times the median latency at rest, or two milliseconds more
_CONNECTIONS_AT_PEAK = (64, 256)
_CONNECTIONS = 4_500  # more than the service takes
_PATIENCE_SECONDS = 0.05  # with connections that are all in use
_SHED = (200, 429, 503)


@dataclass(frozen=True)
class Overload:
    """Rates are requests a second. `wanted` is ten times the peak, `offered` what the driver managed.

    `goodput` counts good answers, `in_time` those within a second of when the request had its time. `shed` were answered 429
    or 503, of which `unsaid` without Retry-After; `dropped` lost their connection; `given_up` found none, and
    `left` had one and no answer when all was over.
    `p50_afterwards` is of each second after it, 0 where nothing was answered well; `recovered_after`: seconds until it was as
    before, None where it was not. `probe`: seconds that an orchestrator's question on a connection of its own took in the
    middle of it, None where there was no answer within ten. `busy`: the share of it that the service spent on a processor; where
    that is little, others had them.
    """

    peak: float
    wanted: float
    offered: float
    seconds: float
    goodput: float
    in_time: float
    shed: int
    unsaid: int
    dropped: int
    left: int
    given_up: int
    p50_at_rest: float
    p50: float
    p99: float
    p50_afterwards: Sequence[float]
    recovered_after: float | None
    probe: float | None
    busy: float

    @property
    def kept(self) -> float:
        """What was answered well and in time, as a share of the peak: what comes later is of no use to who has gone."""
        return self.in_time / self.peak


def overload(
    stage: Stage, replica: Replica, path: str, headers: Mapping[str, str], *, seconds: float
) -> Overload:
    load = Load(port_of(replica), path, headers=headers)
    closed = [replace(load, connections=number, seconds=seconds / 2) for number in _CONNECTIONS_AT_PEAK]
    peak = max(_goodput(stage.driver.send(each)) for each in closed)
    calm = replace(load, rate=peak / FACTOR, connections=64, seconds=min(2.0, seconds / 2))
    rest = stage.driver.send(calm)
    flood = replace(
        load,
        rate=peak * FACTOR,
        connections=_CONNECTIONS,
        connects_first=0,
        seconds=seconds,
        patience=_PATIENCE_SECONDS,
        accepts=_SHED,
        may_lose=True,
    )
    with ThreadPoolExecutor(1) as probing:
        probe = probing.submit(_probe, replica.url, after=seconds / 2)
        before = cpu_seconds([replica.process.pid])
        flooded = stage.driver.send(flood)
        busy = (cpu_seconds([replica.process.pid]) - before) / flooded.seconds
    afterwards = stage.driver.send(replace(calm, seconds=min(10.0, seconds), accepts=_SHED, may_lose=True))
    return told(peak, rest, flood, flooded, afterwards, probe=probe.result(), busy=busy)


def told(
    peak: float,
    rest: Outcome,
    flood: Load,
    flooded: Outcome,
    afterwards: Outcome,
    *,
    probe: float | None,
    busy: float,
) -> Overload:
    whole = int(flood.seconds)
    seconds = flooded.each_second[:whole]
    lag = max(0.0, flooded.seconds - flood.seconds)  # until those who were left had their answers, or gave up
    recovered = _normal_from(afterwards, p50=rest.p50, rate=peak / FACTOR)
    return Overload(
        peak=peak,
        wanted=flood.rate or 0.0,
        offered=flooded.offered / flood.seconds,
        seconds=flood.seconds,
        goodput=sum(each.good for each in seconds) / whole,
        in_time=sum(each.in_time for each in seconds) / whole,
        shed=flooded.statuses.get(503, 0) + flooded.statuses.get(429, 0),
        unsaid=flooded.unsaid,
        dropped=flooded.lost,
        left=flooded.left,
        given_up=flooded.given_up,
        p50_at_rest=rest.p50,
        p50=flooded.p50,
        p99=flooded.p99,
        p50_afterwards=[each.p50 for each in afterwards.each_second],
        recovered_after=None if recovered is None else lag + recovered,
        probe=probe,
        busy=busy,
    )


def _probe(url: str, *, after: float) -> float | None:
    time.sleep(after)
    began = time.perf_counter()
    try:
        httpx.get(f"{url}/health-check/ready", timeout=10)
    except httpx.TransportError:
        return None
    return time.perf_counter() - began


def _normal_from(outcome: Outcome, *, p50: float, rate: float) -> int | None:
    """The first second since which all are well: nearly every request answered, in about the time it took at rest."""
    limit = max(AS_BEFORE * p50, p50 + 2.0)
    well = [each.good >= 0.9 * rate and each.p50 <= limit for each in outcome.each_second[:-1]]
    return next((second for second in range(len(well)) if all(well[second:])), None)


def _goodput(outcome: Outcome) -> float:
    return outcome.good / outcome.seconds
