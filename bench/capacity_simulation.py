"""Refreshes of some replicas, one by one, on a clock of their own: ticks, places, providers' answers, processors, PostgreSQL.

    a tick       takes what comes due before the next one, the soonest first, for no longer than the interval
    a refresh    a place of the lane -> half its processor time -> T1 -> the provider -> the other half -> T2 -> due again

When a token is due again, and how places are shared, the service's own rules say. Random, and the same for each seed.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from app.grants.places import shares
from app.grants.schedule import refresh_margin
from app.grants.slots import AT_OTHERS, AT_STRICT
from bench.capacity_ground import Provider


@dataclass(frozen=True)
class Cell:
    """Replicas with their share of all else. `grants` come due evenly over `spread_seconds` at first. `taken`: how much of
    each replica's core other work has, `postgres_taken` of PostgreSQL's. Looked at from `from_seconds` until `until_seconds`."""

    grants: int
    replicas: int
    providers: Sequence[Provider]
    spread_seconds: float
    from_seconds: float
    until_seconds: float
    refresh_cpu: float
    refresh_postgres: float
    postgres_cores: float
    flush_seconds: float
    lifetime_seconds: float = 3600.0
    interval_seconds: float = 300.0
    margin_seconds: float = 300.0
    concurrency: int = 64
    taken: float = 0.0
    postgres_taken: float = 0.0
    given: float = 1.0  # of a processor that the machine's other work leaves


@dataclass
class Seen:
    """What came of the time that was looked at. Seconds; `late` is sorted, and negative where a refresh was done before it was
    due; `soonest` is the least that an old token still had. `times`: of each grant, in all the time."""

    seconds: float
    refreshes: int = 0
    held: float = 0.0  # places, added up
    core: float = 0.0
    postgres: float = 0.0
    ended: int = 0
    soonest: float = math.inf
    last_at: float = 0.0
    late: list[float] = field(default_factory=list)
    times: list[int] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.refreshes / self.seconds

    @property
    def late_p99(self) -> float:
        return self.late[int(len(self.late) * 0.99)] if self.late else 0.0


class _Server:
    """Work in the order of its coming; one piece takes as long as one core needs, however many there are."""

    def __init__(self, cores: float) -> None:
        self._cores = max(cores, 1e-9)
        self._free_at = 0.0

    def done_at(self, at: float, seconds: float) -> float:
        self._free_at = max(self._free_at, at) + seconds / self._cores
        return max(self._free_at, at + seconds / min(1.0, self._cores))


@dataclass
class _Replica:
    core: _Server
    held: dict[str, int]
    wants: dict[str, int] = field(default_factory=dict)  # of the lanes that its tick has open
    shares: dict[str, int] = field(default_factory=dict)
    cutoff: float = 0.0
    ends_at: float = 0.0


@dataclass(frozen=True)
class _Refresh:
    replica: _Replica
    provider: Provider
    grant: int
    due: float
    expires: float
    began: float


class _Run:
    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._order = itertools.count()
        self._life = timedelta(seconds=cell.lifetime_seconds)
        self._minimum = timedelta(seconds=cell.margin_seconds)
        self._postgres = _Server(cell.postgres_cores * (1 - cell.postgres_taken) * cell.given)
        self._providers = {each.name: each for each in cell.providers}
        self._due: dict[str, list[tuple[float, int, float]]] = {name: [] for name in self._providers}
        self._seen = Seen(cell.until_seconds - cell.from_seconds, times=[0] * cell.grants)
        self._spread()
        for number in range(cell.replicas):
            replica = _Replica(_Server((1 - cell.taken) * cell.given), dict.fromkeys(self._providers, 0))
            self._at(number * cell.interval_seconds / cell.replicas, self._tick, replica)

    def run(self) -> Seen:
        while self._events and self._events[0][0] < self._cell.until_seconds:
            at, _, what, arguments = heapq.heappop(self._events)
            what(at, *arguments)
        self._seen.late.sort()
        return self._seen

    def _spread(self) -> None:
        """Each provider's share of the grants, in no order of theirs."""
        names = random.choices(
            list(self._providers), [each.share for each in self._cell.providers], k=self._cell.grants
        )
        for number, name in enumerate(names):
            due = self._cell.spread_seconds * number / max(1, self._cell.grants)
            self._due[name].append((due, number, due + self._margin()))  # sorted, so a heap

    def _margin(self) -> float:
        return refresh_margin(self._life, minimum=self._minimum).total_seconds()

    def _at(self, time: float, what: Callable[..., None], *arguments: object) -> None:
        heapq.heappush(self._events, (time, next(self._order), what, arguments))

    def _tick(self, now: float, replica: _Replica) -> None:
        interval = self._cell.interval_seconds
        if now < replica.ends_at and replica.wants:
            self._at(replica.ends_at + 1, self._tick, replica)
            return
        replica.cutoff, replica.ends_at = now + interval, now + interval
        replica.wants = {
            name: AT_STRICT if provider.is_strict else AT_OTHERS
            for name, provider in self._providers.items()
            if self._has_due(name, replica, now)
        }
        replica.shares = shares(replica.wants, self._cell.concurrency)
        self._at(now + interval * random.uniform(0.9, 1.1), self._tick, replica)
        self._begin(now, replica)

    def _has_due(self, name: str, replica: _Replica, now: float) -> bool:
        """None in the first half of its token's life."""
        due = self._due[name]
        return (
            bool(due) and due[0][0] <= replica.cutoff and due[0][2] - self._cell.lifetime_seconds / 2 <= now
        )

    def _begin(self, now: float, replica: _Replica) -> None:
        """As many as there are places for."""
        while now < replica.ends_at:
            open_before = len(replica.wants)
            for name in list(replica.wants):
                while replica.held[name] < replica.shares[name] and self._has_room(replica):
                    if not self._has_due(name, replica, now):
                        del replica.wants[name]
                        replica.shares = shares(replica.wants, self._cell.concurrency)
                        break
                    self._claim(now, replica, self._providers[name])
            if len(replica.wants) == open_before:
                return

    def _has_room(self, replica: _Replica) -> bool:
        return sum(replica.held.values()) < self._cell.concurrency

    def _claim(self, now: float, replica: _Replica, provider: Provider) -> None:
        due, grant, expires = heapq.heappop(self._due[provider.name])
        replica.held[provider.name] += 1
        sent_at = self._half(now, replica)
        took = random.lognormvariate(math.log(provider.median_seconds), provider.sigma)
        refresh = _Refresh(replica, provider, grant, due, expires, now)
        self._at(sent_at + took, self._answered, refresh, sent_at)

    def _answered(self, now: float, refresh: _Refresh, sent_at: float) -> None:
        self._at(self._half(now, refresh.replica), self._committed, refresh, sent_at)

    def _half(self, now: float, replica: _Replica) -> float:
        """One of the two statements, with the service's work around it. A commit waits for the flush that is under way, half of
        it on average, and then for its own."""
        cell, seen = self._cell, self._seen
        if now >= cell.from_seconds:
            seen.core += cell.refresh_cpu / 2
            seen.postgres += cell.refresh_postgres / 2
        asked_at = replica.core.done_at(now, cell.refresh_cpu / 2)
        return self._postgres.done_at(asked_at, cell.refresh_postgres / 2) + 1.5 * cell.flush_seconds

    def _committed(self, now: float, refresh: _Refresh, sent_at: float) -> None:
        seen, replica, name = self._seen, refresh.replica, refresh.provider.name
        seen.times[refresh.grant] += 1
        seen.last_at = now
        if now >= self._cell.from_seconds:
            seen.refreshes += 1
            seen.held += now - refresh.began
            seen.late.append(now - refresh.due)
            seen.soonest = min(seen.soonest, refresh.expires - now)
            seen.ended += refresh.expires < now
        expires = sent_at + self._cell.lifetime_seconds
        heapq.heappush(self._due[name], (expires - self._margin(), refresh.grant, expires))
        replica.held[name] -= 1
        self._begin(now, replica)


def simulate(cell: Cell, *, seed: int = 1) -> Seen:
    """The same for the same seed. `random` itself, which the service's rules draw from, is left as it was."""
    state = random.getstate()
    random.seed(seed)
    try:
        return _Run(cell).run()
    finally:
        random.setstate(state)
