"""What the service needs while it does nothing in particular: memory, and the time until it is ready."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import httpx

from bench.accounting import cpu_seconds, resident_megabytes
from bench.grants import PROVIDER
from bench.load import Load
from bench.stage import COMPILED, Driver, Stage, port_of
from tests.broker import Replica

CACHED = 100_000
_SETTLED_SECONDS = 1.0
_WARM_SECONDS = 400.0  # more than PostgreSQL takes from one checkpoint to the next
_SLICE_SECONDS = 10.0  # of the long load, between two readings
_PATH = f"/tokens/{PROVIDER}/cold-{{}}"


@dataclass(frozen=True)
class Memory:
    """Resident megabytes of the service's process. What was not measured is None, or empty.

    `cached_tokens` is what the service says it remembers of `CACHED` tokens that were just fetched. `under_load`: every ten
    seconds, once all that comes by the clock has come, such as a checkpoint of PostgreSQL's, in which more waits to be written;
    `grown` is the difference between the medians of its first and last minute.
    """

    after_start: float
    cached: float | None = None
    cached_tokens: int | None = None
    under_load: Sequence[float] = ()

    @property
    def grown(self) -> float | None:
        minute = round(60 / _SLICE_SECONDS)
        if len(self.under_load) < 2 * minute:
            return None
        return statistics.median(self.under_load[-minute:]) - statistics.median(self.under_load[:minute])


def after_start(replica: Replica) -> Memory:
    """Of one that has just become ready and was asked for nothing."""
    time.sleep(_SETTLED_SECONDS)
    return Memory(resident_megabytes(replica.process.pid))


def with_cached(driver: Driver, replica: Replica, headers: Mapping[str, str], memory: Memory) -> Memory:
    """Once each of `CACHED` tokens was fetched."""
    driver.send(Load(port_of(replica), _PATH, headers=headers, seconds=600, most=CACHED, users=CACHED))
    return replace(
        memory, cached=resident_megabytes(replica.process.pid), cached_tokens=_cached_tokens(replica)
    )


def under_load(
    driver: Driver, replica: Replica, headers: Mapping[str, str], memory: Memory, *, seconds: float
) -> Memory:
    """Fetches of all those tokens, one after the other and from the beginning again; readings once it is warm."""
    load = Load(port_of(replica), _PATH, headers=headers, seconds=_SLICE_SECONDS, users=CACHED)
    readings, first = [], driver.send(replace(load, seconds=_WARM_SECONDS)).offered
    for _ in range(round(seconds / _SLICE_SECONDS)):
        first += driver.send(replace(load, first=first)).offered
        readings.append(resident_megabytes(replica.process.pid))
    return replace(memory, under_load=readings)


@dataclass(frozen=True)
class Starts:
    """`ready`: seconds from the start of the process to its first 204 at `/health-check/ready`, while PostgreSQL is up and
    migrated; `cpu`: the median of what they spent on a processor until then; `imports`: what the interpreter needs to
    import all. `memory` is of the last one."""

    ready: Sequence[float]
    cpu: float
    imports: float
    memory: Memory


def starts(stage: Stage, *, times: int) -> Starts:
    """A replica started and ended so many times."""
    ready, cpu, resident = [], [], []
    for _ in range(times):
        began = time.perf_counter()
        replica = stage.service()
        ready.append(time.perf_counter() - began)
        cpu.append(cpu_seconds([replica.process.pid]))
        resident.append(after_start(replica))
        stage.end(replica)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import app.cli"], check=True, env={**os.environ, **COMPILED})
    return Starts(ready, statistics.median(cpu), time.perf_counter() - began, resident[-1])


def _cached_tokens(replica: Replica) -> int | None:
    """The gauge of what is remembered, whatever its caches are called; the largest of them."""
    with httpx.Client(base_url=replica.url) as http:
        lines = http.get("/metrics").text.splitlines()
    sizes = [float(line.rpartition(" ")[2]) for line in lines if line.startswith("broker_cache_entries{")]
    return int(max(sizes)) if sizes else None
