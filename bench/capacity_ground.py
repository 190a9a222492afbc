"""What the capacity model stands on: what was measured, and what is assumed of callers, providers and servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.db import Database
from app.grants.known import SIZE

_MICRO = 1e-6


@dataclass(frozen=True)
class Costs:
    """Measured, by `python -m bench` and `python -m bench.capacity --check`. Seconds of processor time, and bytes.

    What a request costs falls with the load, since one that finds the process awake need not wake it: `..._at_ease` is of
    one that finds nothing else to do, the others are of as many as there can be; in between goes a straight line. A refresh has all in it that goes on besides, the chaining of its event too. `heard` is of one announcement at one replica
    that listens; `sealed` of one event written and chained; `used` of one row whose `last_used_at` moves; the bytes of rows
    have their indexes in them, and an event its place in the chain.
    """

    refresh_cpu: float
    refresh_postgres: float
    refresh_statements: float
    refresh_commits: float
    refresh_wal: float
    refresh_cpu_at_ease: float
    refresh_postgres_at_ease: float
    hot_cpu: float
    hot_cpu_at_ease: float
    cold_cpu: float
    cold_cpu_at_ease: float
    cold_postgres: float
    cold_postgres_at_ease: float
    cold_statements: float
    idle_cpu: float  # a second in which nothing happens
    idle_postgres: float
    heard_cpu: float
    heard_postgres: float
    sealed_cpu: float
    sealed_postgres: float
    sealed_wal: float
    used_postgres: float
    used_wal: float
    grant_bytes: float
    attempt_bytes: float
    event_bytes: float
    census_seconds: float  # a grant
    megabytes_after_start: float
    megabytes_cached: float | None  # more, with as many as are remembered at most

    @classmethod
    def of(cls, run: Mapping[str, Any], extras: Mapping[str, Any], growth: Mapping[str, Any]) -> Costs:
        """`run`: latest.json or the like; `extras`: capacity.json; `growth`: growth.json."""
        rounds: dict[str, Mapping[str, float]] = {}
        for compared in run["fetches"]:
            rounds |= compared["rounds"]
        refresh, memory = run["refreshes"]["ours"], run["memory"]
        census = growth["sizes"]["census of all grants"]
        largest = max(census, key=int)
        cached = memory["cached"]
        return cls(
            refresh_cpu=refresh["cpu"] * _MICRO,
            refresh_postgres=refresh["postgres"] * _MICRO,
            refresh_statements=refresh["statements"],
            refresh_commits=refresh["commits"],
            refresh_wal=refresh["wal"],
            hot_cpu=rounds["hot"]["cpu"] * _MICRO,
            cold_cpu=rounds["cold"]["cpu"] * _MICRO,
            cold_postgres=rounds["cold"]["postgres"] * _MICRO,
            census_seconds=census[largest]["p50"] / 1000 / int(largest),
            megabytes_after_start=memory["after_start"],
            megabytes_cached=None if cached is None else cached - memory["after_start"],
            **extras,
        )

    def at(self, name: str, busy: float) -> float:
        """The cost of that name where so much of the processor is in use."""
        eased: float = getattr(self, f"{name}_at_ease")
        least: float = getattr(self, name)
        return eased + (least - eased) * min(1.0, max(0.0, busy))


@dataclass(frozen=True)
class Provider:
    """Of `share` of all grants. Its answers take `median_seconds`, lognormally with `sigma`."""

    name: str
    share: float
    is_strict: bool
    median_seconds: float
    sigma: float


PROVIDERS: Sequence[Provider] = (
    Provider("large", 0.5, False, 0.20, 0.6),
    Provider("other", 0.4, False, 0.30, 0.6),
    Provider("strict", 0.1, True, 0.30, 0.6),
)


@dataclass(frozen=True)
class Primary:
    """One good PostgreSQL server."""

    cores: float = 32
    wal_bytes_a_second: float = 1e9
    flush_seconds: float = 0.0005  # of the WAL to the disk, shared by all who wait
    checkpoint_seconds: float = 900.0
    memory_bytes: float = 256e9
    disk_bytes: float = 16e12
    connections: int = 500


@dataclass(frozen=True)
class Demand:
    """`hot`: the share of fetches that would be answered from memory if nothing was announced. `kept_days`: how long events
    and the history are kept; the service itself removes no history."""

    grants: int
    lifetime_seconds: float = 3600.0
    fetches_a_grant_and_hour: float = 4.0
    hot: float = 0.9
    providers: Sequence[Provider] = PROVIDERS
    primary: Primary = Primary()
    filled: float = 0.7  # how far anything may be used
    interval_seconds: float = 300.0  # the settings' defaults, from here on
    margin_seconds: float = 300.0
    concurrency: int = 64
    kept_days: float = 30.0

    @property
    def fetches(self) -> float:
        """A second."""
        return self.grants * self.fetches_a_grant_and_hour / 3600


REMEMBERED = SIZE  # grants, by each replica


def connections_of_a_replica() -> int:
    """Of both pools, and one that listens."""
    _, most = Database("postgresql+asyncpg://nobody@localhost/none").pool_usage()
    return most + 1
