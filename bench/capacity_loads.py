"""What is used of what there is, by so many refreshes and fetches a second. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from app.grants.known import TTL_SECONDS
from bench.capacity_ground import Costs, Demand

PAGE = 8192
_INDEX_ENTRY = 80.0  # bytes of an index on a UUID or a fingerprint, as full as PostgreSQL leaves it
_GRANT_INDEXES = 5  # that each refresh writes to at a place of its own: id, key, due, fingerprint, unasked
_HISTORY_INDEXES = 3  # grant in the history, grant and user in the trail
_CENSUS_LIMIT_SECONDS = 8.0  # the pool's command_timeout


@dataclass(frozen=True)
class Load:
    """`used` of what is `there`, both in `unit`; `is_database`: more replicas do not help. `filled`: how far it may be
    used."""

    name: str
    used: float
    there: float
    unit: str
    is_database: bool
    filled: float

    @property
    def utilisation(self) -> float:
        return self.used / self.there

    def grants_until(self, grants: int) -> float:
        """How many grants there may be until it is used as far as it may be."""
        if self.used <= 0:
            return math.inf
        return grants * self.filled / self.utilisation


def enough_for(sizes: Sequence[tuple[int, Load]]) -> float:
    """How many grants one load allows, by what it is at several numbers of them, the least first: not all grow as they do."""
    for (fewer, before), (more, after) in itertools.pairwise(sizes):
        if before.utilisation < before.filled < after.utilisation:
            slope = math.log(after.utilisation / before.utilisation) / math.log(more / fewer)
            return float(fewer * (before.filled / before.utilisation) ** (1 / slope))
    grants, load = sizes[0] if sizes[0][1].utilisation >= sizes[0][1].filled else sizes[-1]
    return load.grants_until(grants)


@dataclass(frozen=True)
class Flows:
    """A second, of all replicas together. `ttl_seconds`: how long what is remembered is good for, so many changes being told."""

    refreshes: float
    hits: float
    misses: float
    events: float  # of tokens given out; a refresh's is its own
    ttl_seconds: float
    place_seconds: float  # that a refresh holds its place

    @property
    def hot(self) -> float:
        return self.hits / (self.hits + self.misses) if self.hits else 0.0


def core_of(costs: Costs, flows: Flows, replicas: int, busy: float) -> float:
    """Of one replica's core, at the costs that there are where so much of it is in use."""
    shared = (
        flows.refreshes * costs.at("refresh_cpu", busy)
        + flows.hits * costs.at("hot_cpu", busy)
        + flows.misses * costs.at("cold_cpu", busy)
        + flows.events * costs.sealed_cpu
    )
    heard = flows.refreshes * costs.heard_cpu * (replicas - 1) / replicas
    return shared / replicas + heard + costs.idle_cpu


def postgres_of(demand: Demand, costs: Costs, flows: Flows, replicas: int, busy: float) -> float:
    """Of PostgreSQL's cores."""
    seconds = census_seconds(demand, costs)
    cores = (
        flows.refreshes * costs.at("refresh_postgres", busy)
        + flows.misses * (costs.at("cold_postgres", busy) + costs.used_postgres)
        + flows.events * costs.sealed_postgres
        + flows.refreshes * costs.heard_postgres * (replicas - 1)
        + replicas * costs.idle_postgres
        + replicas * min(seconds, _CENSUS_LIMIT_SECONDS) / (seconds + min(max(20 * seconds, 0.5), 60.0))
    )
    return cores / demand.primary.cores


def census_seconds(demand: Demand, costs: Costs) -> float:
    return demand.grants * costs.census_seconds


def settled(use: Callable[[float], float]) -> float:
    """How much is in use, where that is what the costs depend on."""
    busy = 0.5
    for _ in range(60):
        busy = (busy + use(busy)) / 2
    return busy


def whole_pages(demand: Demand, costs: Costs, refreshes: float) -> float:
    """Pages a second that go to the WAL whole, since it is their first change after a checkpoint: of grants and of their
    indexes, and of those indexes of the history and the trail that are written to at places without an order."""
    changes = refreshes * demand.primary.checkpoint_seconds
    kept = refreshes * 86400 * demand.kept_days
    grant_row = max(1.0, costs.grant_bytes - _GRANT_INDEXES * _INDEX_ENTRY)
    sizes = [demand.grants * grant_row, *[demand.grants * _INDEX_ENTRY] * _GRANT_INDEXES]
    sizes += [kept * _INDEX_ENTRY] * _HISTORY_INDEXES
    touched = sum(_touched(size / PAGE, changes) for size in sizes)
    return touched / demand.primary.checkpoint_seconds


def _touched(pages: float, changes: float) -> float:
    """Different ones."""
    return pages * -math.expm1(-changes / pages) if pages else 0.0


def loads_of(
    demand: Demand, costs: Costs, flows: Flows, replicas: int, core: float, postgres: float, wal: float,
    kept: float, connections: int,
) -> Iterator[Load]:  # fmt: skip
    primary, filled = demand.primary, demand.filled
    heard = flows.refreshes * costs.heard_cpu
    sealing = (flows.refreshes + flows.events) * costs.sealed_cpu
    yield Load("a replica's core", core, 1, "cores", False, filled)
    yield Load("announcements, at each replica's core", heard, 1, "cores", False, filled)
    yield Load("the chain of the audit trail, at one core", sealing, 1, "cores", True, filled)
    yield Load("PostgreSQL's processors", postgres * primary.cores, primary.cores, "cores", True, filled)
    yield Load("WAL", wal / 1e6, primary.wal_bytes_a_second / 1e6, "MB/s", True, filled)
    yield Load("connections", connections, primary.connections, "", True, 1.0)
    yield Load("the census", census_seconds(demand, costs), _CENSUS_LIMIT_SECONDS, "s", True, 1.0)
    grants = demand.grants * costs.grant_bytes
    yield Load("grants in memory", grants / 1e9, primary.memory_bytes / 1e9, "GB", True, filled)
    disk = (grants + kept * demand.kept_days) / 1e12
    yield Load("history and trail on the disk", disk, primary.disk_bytes / 1e12, "TB", True, filled)
    yield Load("what is remembered", TTL_SECONDS / flows.ttl_seconds, 1, "× outdated", False, 1.0)
