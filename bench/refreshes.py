"""Proactive refreshes: what one costs, and how soon many are done."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from bench import reference
from bench.accounting import cpu_seconds
from bench.grants import bring_due_ones, execute, fetched
from bench.measure import Ratio
from bench.stage import Stage
from tests.broker import ADMIN_KEY, Replica

CONCURRENCY = reference.CONCURRENCY
PROVIDER_SECONDS = 0.05  # of the comparison's provider
SLOW_PROVIDER_SECONDS = 0.5
_CALLS = "SELECT sum(calls)::bigint FROM pg_stat_statements"
_BEGUN = "SELECT sum(calls)::bigint FROM pg_stat_statements WHERE query ~* '^(BEGIN|COMMIT|ROLLBACK)'"
_COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
_WAL = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
_MARKS = (_CALLS, _BEGUN, _COMMITS, _WAL)
_users = itertools.count()


@dataclass(frozen=True)
class Cost:
    """Of one refresh. Processor time in microseconds; `statements` without BEGIN, COMMIT and ROLLBACK, which `commits`
    counts; `wal` in bytes."""

    cpu: float
    postgres: float
    statements: float
    commits: float
    wal: float


@dataclass(frozen=True)
class Refreshes:
    """`ours` and `bare` are medians; `ratio` is of the processor time."""

    ours: Cost
    bare: Cost
    ratio: Ratio


@dataclass(frozen=True)
class Worked:
    """Grants that were due at once, and how long that took; `ideal` is what concurrency and the provider's time allow."""

    grants: int
    concurrency: int
    provider_seconds: float
    seconds: float
    ideal: float
    cpu: float  # seconds of processor time, the service's

    @property
    def ratio(self) -> float:
        return self.seconds / self.ideal


def compare(stage: Stage, replica: Replica, *, rounds: int, refreshes: int) -> Refreshes:
    """What the scheduler does for a grant that is due; against one POST by httpx and two statements by asyncpg."""
    stage.provider(delay=PROVIDER_SECONDS)
    asyncio.run(execute(stage.url, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements", *reference.TABLES))
    pid, port = stage.reference("refresh")
    with _client(replica.url) as service, _client(f"http://127.0.0.1:{port}") as bare:

        def ours() -> Cost:
            bring_due_ones(stage.url, _due(refreshes))
            return _cost(stage, replica.process.pid, refreshes, lambda: _run(service, refreshes))

        def theirs() -> Cost:
            run = f"/run?operations={refreshes}"
            return _cost(stage, pid, refreshes, lambda: bare.post(run).raise_for_status())

        ours(), theirs()  # these do not count
        pairs = [(ours(), theirs()) for _ in range(rounds)]
    costs = list(zip(*pairs, strict=True))
    ratio = Ratio.of([each.cpu for each in costs[0]], [each.cpu for each in costs[1]])
    return Refreshes(_median(costs[0]), _median(costs[1]), ratio)


def work_off(stage: Stage, replica: Replica, *, grants: int) -> Worked:
    """So many grants due at once, at a provider that takes half a second for each."""
    stage.provider(delay=SLOW_PROVIDER_SECONDS)
    bring_due_ones(stage.url, _due(grants))
    with _client(replica.url) as http:
        before, began = cpu_seconds([replica.process.pid]), time.perf_counter()
        _run(http, grants)
        seconds = time.perf_counter() - began
    return Worked(
        grants,
        CONCURRENCY,
        SLOW_PROVIDER_SECONDS,
        seconds,
        grants / CONCURRENCY * SLOW_PROVIDER_SECONDS,
        cpu_seconds([replica.process.pid]) - before,
    )


def _run(http: httpx.Client, refreshes: int) -> None:
    """One tick of the scheduler. Raises RuntimeError unless each was refreshed."""
    tally = http.post("/refresh/run").raise_for_status().json()
    if tally["refreshed"] != refreshes:
        raise RuntimeError(f"{refreshes} grants were due, and this became of them: {tally}")


def _cost(stage: Stage, pid: int, refreshes: int, work: Callable[[], object]) -> Cost:
    marks = [fetched(stage.url, query) for query in _MARKS]
    before, before_there = cpu_seconds([pid]), stage.postgres_seconds()
    work()
    cpu, there = cpu_seconds([pid]) - before, stage.postgres_seconds() - before_there
    calls, begun, commits, wal = (
        fetched(stage.url, query) - mark for query, mark in zip(_MARKS, marks, strict=True)
    )
    return Cost(
        cpu=1e6 * cpu / refreshes,
        postgres=1e6 * there / refreshes,
        statements=(calls - begun) / refreshes,
        commits=commits / refreshes,
        wal=wal / refreshes,
    )


def _median(costs: tuple[Cost, ...]) -> Cost:
    return Cost(
        *(statistics.median(getattr(each, name) for each in costs) for name in Cost.__dataclass_fields__)
    )


def _due(grants: int) -> list[str]:
    return [f"due-{next(_users)}" for _ in range(grants)]


def _client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=600)
