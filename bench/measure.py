"""Rounds: candidates take turns, and for each request the processor time of the server is told, by the system's account.

Machines have good and bad seconds, so what counts is the ratio of two candidates within one round, and its median.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.accounting import cpu_seconds
from bench.load import Load, Outcome
from bench.stage import Stage


@dataclass(frozen=True)
class Candidate:
    """A server's process, and the load of its next round. What it does in the seconds of `settles` after the last answer
    counts as well: what it puts off."""

    name: str
    pid: int
    load: Callable[[], Load]
    settles: float = 0.0


@dataclass(frozen=True)
class Round:
    """Microseconds of processor time a request: the server's, and PostgreSQL's. `rate`: requests a second."""

    cpu: float
    postgres: float
    rate: float
    p50: float
    p99: float


@dataclass(frozen=True)
class Ratio:
    """Of one candidate to another, within each round."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, ones: Sequence[float], others: Sequence[float]) -> Ratio:
        ratios = [one / other for one, other in zip(ones, others, strict=True)]
        return cls(statistics.median(ratios), min(ratios), max(ratios))


Rounds = Mapping[str, Sequence[Round]]


def alternate(stage: Stage, candidates: Sequence[Candidate], *, rounds: int) -> Rounds:
    """Each has a round that does not count first. Then they go in turn, forwards and backwards."""
    found: dict[str, list[Round]] = {candidate.name: [] for candidate in candidates}
    for candidate in candidates:
        stage.driver.send(candidate.load())
        time.sleep(candidate.settles)
    for number in range(rounds):
        for candidate in candidates if number % 2 == 0 else reversed(candidates):
            found[candidate.name].append(_round(stage, candidate))
    return found


def _round(stage: Stage, candidate: Candidate) -> Round:
    load = candidate.load()
    with stage.driver.connected(load):
        before, before_there = cpu_seconds([candidate.pid]), stage.postgres_seconds()
        outcome = stage.driver.finish()
        time.sleep(candidate.settles)
        after, after_there = cpu_seconds([candidate.pid]), stage.postgres_seconds()
    return as_round(outcome, after - before, after_there - before_there)


def as_round(outcome: Outcome, cpu: float, postgres: float) -> Round:
    """`cpu` and `postgres` in seconds, of all requests together."""
    return Round(
        cpu=1e6 * cpu / outcome.answered,
        postgres=1e6 * postgres / outcome.answered,
        rate=outcome.answered / outcome.seconds,
        p50=outcome.p50,
        p99=outcome.p99,
    )


def median(rounds: Sequence[Round]) -> Round:
    """Each figure's, by itself."""
    return Round(
        *(statistics.median(getattr(each, name) for each in rounds) for name in Round.__dataclass_fields__)
    )


def ratio(rounds: Rounds, one: str, other: str) -> Ratio:
    """Of the servers' processor time."""
    return Ratio.of([each.cpu for each in rounds[one]], [each.cpu for each in rounds[other]])
