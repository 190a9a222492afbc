"""What so many grants need: rates from a simulation, times what each thing costs, over what there is of it. Pure, but slow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.grants.known import CHANGES_KEPT, TTL_SECONDS
from app.grants.slots import AT_OTHERS, AT_STRICT
from bench.capacity_ground import REMEMBERED, Costs, Demand, connections_of_a_replica
from bench.capacity_loads import PAGE, Flows, Load, core_of, loads_of, postgres_of, settled, whole_pages
from bench.capacity_simulation import Cell, Seen, simulate

_PILOT, _PILOT_REPLICAS = 3000, 8
_SIMULATED = 2  # replicas, with their share of all else
_MOST_REPLICAS = 5000


@dataclass(frozen=True)
class Answer:
    demand: Demand
    replicas: int
    wanted_by: dict[str, int]  # replicas, by what wants them
    flows: Flows
    loads: Sequence[Load]
    statements: float  # a second
    commits: float
    wal: float  # bytes a second
    whole_pages: float  # of it
    history_bytes: float  # a day
    trail_bytes: float
    megabytes: float | None  # a replica, with as much remembered as there is to remember
    connections: int
    seen: Seen

    @property
    def first(self) -> Load:
        """What breaks first."""
        return min(self.loads, key=lambda load: load.grants_until(self.demand.grants))

    @property
    def first_of_database(self) -> Load:
        return min(
            (load for load in self.loads if load.is_database),
            key=lambda load: load.grants_until(self.demand.grants),
        )


def answer(demand: Demand, costs: Costs, *, seed: int = 1) -> Answer:
    """The replicas that are needed for `demand`, and what they and one primary have to do then."""
    flows = flows_of(demand, replicas=_PILOT_REPLICAS, seed=seed)
    wanted = _wanted(demand, costs, flows)
    replicas = max(wanted.values())
    if replicas < _PILOT_REPLICAS:
        flows = flows_of(demand, replicas=replicas, seed=seed)
    pages = whole_pages(demand, costs, flows.refreshes)
    wal = (
        flows.refreshes * costs.refresh_wal
        + flows.events * costs.sealed_wal
        + flows.misses * costs.used_wal
        + pages * PAGE
    )
    core = settled(lambda busy: core_of(costs, flows, replicas, busy))
    postgres = settled(lambda busy: postgres_of(demand, costs, flows, replicas, busy))
    history = 86400 * flows.refreshes * costs.attempt_bytes
    trail = 86400 * (flows.refreshes + flows.events) * costs.event_bytes
    statements = flows.refreshes * costs.refresh_statements + flows.misses * costs.cold_statements
    commits = flows.refreshes * costs.refresh_commits + flows.misses
    connections = replicas * connections_of_a_replica()
    remembered = min(REMEMBERED, demand.grants) / REMEMBERED
    measured = costs.megabytes_cached
    loads = tuple(loads_of(demand, costs, flows, replicas, core, postgres, wal, history + trail, connections))
    return Answer(
        demand, replicas, wanted, flows, loads, statements, commits, wal, pages * PAGE, history, trail,
        None if measured is None else costs.megabytes_after_start + measured * remembered,
        connections, _simulated(demand, costs, flows, replicas, core, postgres, seed=seed),
    )  # fmt: skip


def flows_of(demand: Demand, *, replicas: int, seed: int) -> Flows:
    pilot = simulate(_pilot(demand, replicas), seed=seed)
    refreshes = demand.grants * pilot.rate / _PILOT
    ttl = min(TTL_SECONDS, CHANGES_KEPT / refreshes)
    asked_again = demand.hot / (1 - demand.hot) * ttl / TTL_SECONDS if demand.hot < 1 else math.inf
    hot = 1 - 1 / (1 + asked_again)
    misses = demand.fetches * (1 - hot)
    # The first of a minute, and the count of the others where there are any.
    events = misses * (1 if demand.hot == 0 else 2)
    held = pilot.held / max(1, pilot.refreshes)
    return Flows(refreshes, demand.fetches * hot, misses, events, ttl, held)


def _pilot(demand: Demand, replicas: int) -> Cell:
    """Few grants on much machinery, for two lives after one that does not count: how often one is refreshed, and how long that
    holds a place."""
    life = demand.lifetime_seconds
    return Cell(
        grants=_PILOT,
        replicas=replicas,
        providers=demand.providers,
        spread_seconds=life * 0.8,
        from_seconds=life,
        until_seconds=3 * life,
        refresh_cpu=0.002,
        refresh_postgres=0.001,
        postgres_cores=demand.primary.cores,
        flush_seconds=demand.primary.flush_seconds,
        lifetime_seconds=life,
        interval_seconds=demand.interval_seconds,
        margin_seconds=demand.margin_seconds,
        concurrency=demand.concurrency,
    )


def _wanted(demand: Demand, costs: Costs, flows: Flows) -> dict[str, int]:
    """Replicas, by what wants them, so that nothing is used further than it may be."""
    held = flows.refreshes * flows.place_seconds
    wanted = {"refreshes at once": math.ceil(held / (demand.concurrency * demand.filled))}
    for provider in demand.providers:
        size = AT_STRICT if provider.is_strict else AT_OTHERS
        wanted[f"places at “{provider.name}”"] = math.ceil(held * provider.share / (size * demand.filled))
    wanted["a core each"] = next(
        (
            replicas
            for replicas in range(1, _MOST_REPLICAS)
            if core_of(costs, flows, replicas, demand.filled) <= demand.filled
        ),
        max(1, *wanted.values()),  # no number is enough: what each has to hear is too much
    )
    return wanted


def _simulated(
    demand: Demand, costs: Costs, flows: Flows, replicas: int, core: float, postgres: float, *, seed: int
) -> Seen:
    """Two of the replicas for two intervals, after one that does not count."""
    few = min(_SIMULATED, replicas)
    interval, share = demand.interval_seconds, min(_SIMULATED, replicas) / replicas
    rate = flows.refreshes * share
    refresh = costs.at("refresh_cpu", core)
    own = rate / few * refresh
    statements = costs.at("refresh_postgres", postgres)
    cores = demand.primary.cores
    pilot = _pilot(demand, few)
    cell = replace(
        pilot,
        grants=round(rate * 3 * interval),
        spread_seconds=3 * interval,
        from_seconds=interval,
        until_seconds=3 * interval,
        refresh_cpu=refresh,
        refresh_postgres=statements,
        postgres_cores=cores * share,
        taken=min(0.99, max(0.0, core - own)),
        postgres_taken=min(0.99, max(0.0, postgres - flows.refreshes * statements / cores)),
    )
    return simulate(cell, seed=seed)
