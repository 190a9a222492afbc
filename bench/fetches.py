"""Fetches: hot ones, a hundred at once, and cold ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from bench.grants import PROVIDER
from bench.load import Load
from bench.measure import Candidate, Ratio, Round, Rounds, alternate, median, ratio
from bench.stage import Stage, port_of
from tests.broker import Replica

BATCH = 100
_PATH = f"/tokens/{PROVIDER}/hot-0"
# Until the trail of what was fetched is written and chained, which else would count in some later round, or in none.
_SETTLES_SECONDS = 2.5


@dataclass(frozen=True)
class Compared:
    """`rounds` are medians, by candidate; `ratios` by what they tell."""

    rounds: Mapping[str, Round]
    ratios: Mapping[str, Ratio]


def compare(rounds: Rounds, ratios: Mapping[str, tuple[str, str]]) -> Compared:
    return Compared(
        {name: median(each) for name, each in rounds.items()},
        {what: ratio(rounds, *pair) for what, pair in ratios.items()},
    )


def hot(
    stage: Stage, replica: Replica, headers: Mapping[str, str], *, rounds: int, seconds: float
) -> Compared:
    """The same token again and again, and the first hundred users' at once; against a bare route and a bare callable."""
    bare, bare_port = stage.reference("bare")
    route, route_port = stage.reference("route")
    items = [{"provider": PROVIDER, "user_id": f"hot-{number}"} for number in range(BATCH)]
    single = Load(port_of(replica), _PATH, headers=headers, seconds=seconds)
    batch = Load(
        port_of(replica), "/tokens/batch", "POST", headers, json.dumps({"items": items}), seconds=seconds
    )
    candidates = [
        Candidate("hot", replica.process.pid, lambda: single),
        Candidate("bare route", route, lambda: Load(route_port, _PATH, headers=headers, seconds=seconds)),
        Candidate("bare callable", bare, lambda: Load(bare_port, _PATH, headers=headers, seconds=seconds)),
        Candidate("batch of 100", replica.process.pid, lambda: batch),
    ]
    ratios = {
        "hot / bare route": ("hot", "bare route"),
        "hot / bare callable": ("hot", "bare callable"),
        "batch of 100 / hot": ("batch of 100", "hot"),
    }
    return compare(alternate(stage, candidates, rounds=rounds), ratios)


def cold(
    stage: Stage, replica: Replica, headers: Mapping[str, str], *, rounds: int, requests: int
) -> Compared:
    """Each fetch one of a grant that was never asked for; against a route with one `fetchrow` of the same grants."""
    database, database_port = stage.reference("database")
    firsts = {port_of(replica): 0, database_port: 0}

    def next_load(port: int) -> Load:
        first = firsts[port]
        firsts[port] += requests
        path = f"/tokens/{PROVIDER}/cold-{{}}"
        users = first + requests
        return Load(port, path, headers=headers, seconds=60, most=requests, first=first, users=users)

    candidates = [
        Candidate("cold", replica.process.pid, lambda: next_load(port_of(replica)), _SETTLES_SECONDS),
        Candidate("bare route with fetchrow", database, lambda: next_load(database_port)),
    ]
    names = ("cold", "bare route with fetchrow")
    return compare(alternate(stage, candidates, rounds=rounds), {" / ".join(names): names})
