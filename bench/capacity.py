"""`python -m bench.capacity`: what so many grants need, by simulation, as Markdown; `--check` compares it with the service.

What things cost is read from bench/results; what is assumed of servers and providers stands in bench/capacity_ground.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.capacity_ground import Costs, Demand, Provider
from bench.capacity_loads import Flows, core_of, enough_for, settled
from bench.capacity_model import Answer, answer
from bench.capacity_simulation import Cell, simulate
from bench.results import FOLDER, keep_json, read

EXTRAS = FOLDER / "capacity.json"
GROWTH = FOLDER / "growth.json"
_BEGIN, _END = "<!-- tables -->", "<!-- /tables -->"
_SIZES = (10_000_000, 100_000_000)
_FLUSH_SECONDS = 0.002  # of the machine that the check runs on, about


def read_costs(path: Path) -> Costs:
    return Costs.of(read(path), read(EXTRAS)["costs"], read(GROWTH))


def table(answers: Sequence[Answer]) -> str:
    """Markdown: what each size needs, then what is used of what."""
    return "\n".join([*_needs(answers), "", *_uses(answers)]) + "\n"


def _needs(answers: Sequence[Answer]) -> Iterator[str]:
    yield _row("", *(f"{each.demand.grants:,} grants" for each in answers))
    yield _row("---", *("---:" for _ in answers))
    rows: Mapping[str, Callable[[Answer], str]] = {
        "refreshes a second": lambda each: f"{each.flows.refreshes:,.0f}",
        "fetches a second": lambda each: f"{each.demand.fetches:,.0f}",
        "of them from memory": lambda each: f"{each.flows.hot:.0%}",
        "what is remembered is good for, s": lambda each: f"{each.flows.ttl_seconds:.1f}",
        "**replicas**": lambda each: f"**{each.replicas:,}**",
        "statements a second": lambda each: f"{each.statements:,.0f}",
        "commits a second": lambda each: f"{each.commits:,.0f}",
        "WAL, MB/s": lambda each: f"{each.wal / 1e6:,.0f}",
        "of it whole pages after checkpoints, MB/s": lambda each: f"{each.whole_pages / 1e6:,.0f}",
        "WAL a day, TB": lambda each: f"{each.wal * 86400 / 1e12:,.1f}",
        "history a day, GB": lambda each: f"{each.history_bytes / 1e9:,.0f}",
        "audit trail a day, GB": lambda each: f"{each.trail_bytes / 1e9:,.0f}",
        "connections without a pooler": lambda each: f"{each.connections:,}",
        "PgBouncer": lambda each: "needed" if each.connections > each.demand.primary.connections else "no",
        "memory of a replica, MB": lambda each: (
            "not measured" if each.megabytes is None else f"{each.megabytes:.0f}"
        ),
        "refreshes simulated": lambda each: f"{each.seen.refreshes:,}",
        "99 % done after they were due by, s": lambda each: f"{each.seen.late_p99:,.0f}",
        "least that an old token still had, s": lambda each: f"{each.seen.soonest:,.0f}",
        "**breaks first**": lambda each: f"**{each.first.name}**",
        "of the primary": lambda each: each.first_of_database.name,
    }
    for what, tell in rows.items():
        yield _row(what, *map(tell, answers))
    for name in answers[0].wanted_by:
        yield _row(f"replicas wanted by {name}", *(f"{each.wanted_by[name]:,}" for each in answers))


def _uses(answers: Sequence[Answer]) -> Iterator[str]:
    sizes = [f"at {each.demand.grants:,}" for each in answers]
    yield _row("", *sizes, "there is", "enough for, grants")
    yield _row("---", *("---:" for _ in (*sizes, "", "")))
    for loads in zip(*(each.loads for each in answers), strict=True):
        used = (f"{load.used:,.2f} ({load.utilisation:.0%})" for load in loads)
        least = enough_for([(each.demand.grants, load) for each, load in zip(answers, loads, strict=True)])
        until = "more replicas" if loads[0].name == "a replica's core" else f"{least / 1e6:,.1f} M"
        yield _row(loads[0].name, *used, f"{loads[0].there:,.0f} {loads[0].unit}", until)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def check(say: Callable[[str], object]) -> None:
    """Measures one point of the service and what `Costs` lacks, and keeps both with what the model says of that point."""
    from bench.capacity_check import Point, measure
    from bench.stage import Stage

    point = Point()
    with Stage.running() as stage:
        measured, idle, extras = measure(stage, point)
    costs = Costs.of(read(FOLDER / "latest.json"), extras, read(GROWTH))
    said = predicted(asdict(point), asdict(idle), costs, given=measured.given)
    seen = {**asdict(measured.used), "refresh_seconds": measured.refresh_seconds}
    compared = {
        name: {"model": said[name], "measured": seen[name], "ratio": said[name] / seen[name]} for name in said
    }
    keep_json(
        EXTRAS, {"costs": extras, "point": asdict(point), "given": measured.given, "compared": compared}
    )
    say(compared_table(read(EXTRAS)))


def predicted(
    point: Mapping[str, float], idle: Mapping[str, float], costs: Costs, *, given: float = 1.0
) -> dict[str, float]:
    """What the model says of a point: the same totals that are measured. The refreshes first, then what is left of the time."""
    seconds, hot, cold = point["seconds"], point["hot_a_second"], point["cold_a_second"]
    fetches = Flows(0.0, hot, cold, cold, 5.0, 0.0)
    busy = settled(partial(core_of, costs, fetches, 1))
    took, working = 0.0, 0.5
    for _ in range(
        20
    ):  # what a refresh costs depends on how busy it makes the replica, and the other way round
        taken = core_of(costs, fetches, 1, working)
        took = simulate(replace(_cell(point, costs, working, taken=taken), given=given)).last_at
        both = replace(fetches, refreshes=point["due"] / took)
        working = settled(partial(core_of, costs, both, 1))
    both = replace(fetches, refreshes=point["due"] / took)
    rest = max(0.0, seconds - took)
    window = max(seconds, took)
    colds = cold * seconds
    postgres = (
        point["due"] * costs.at("refresh_postgres", working)
        + colds * (costs.at("cold_postgres", working) + costs.sealed_postgres)
        + idle["postgres"] * window
    )
    return {
        "cpu": core_of(costs, both, 1, working) * took + core_of(costs, fetches, 1, busy) * rest,
        "postgres": postgres,
        "statements": point["due"] * costs.refresh_statements
        + colds * costs.cold_statements
        + idle["statements"] * window,
        "wal": point["due"] * costs.refresh_wal + colds * (costs.sealed_wal + costs.used_wal),
        "refresh_seconds": took,
    }


def _cell(point: Mapping[str, float], costs: Costs, busy: float, *, taken: float) -> Cell:
    provider = Provider("the check's", 1.0, False, point["provider_seconds"], 0.0)
    return Cell(
        grants=round(point["due"]),
        replicas=1,
        providers=[provider],
        spread_seconds=0.0,
        from_seconds=0.0,
        until_seconds=3600.0,
        refresh_cpu=costs.at("refresh_cpu", busy),
        refresh_postgres=costs.at("refresh_postgres", busy),
        postgres_cores=1.0,
        flush_seconds=_FLUSH_SECONDS,
        lifetime_seconds=86400.0,
        interval_seconds=1800.0,
        concurrency=round(point["concurrency"]),
        taken=min(0.95, taken),
    )


def compared_table(kept: Mapping[str, Any]) -> str:
    """Markdown: the model, the service, and their ratio."""
    rows = [_row("in all", "model", "measured", "ratio"), _row("---", "---:", "---:", "---:")]
    names = {
        "cpu": "the replica's processor, s",
        "postgres": "PostgreSQL's processors, s",
        "statements": "statements",
        "wal": "WAL, bytes",
        "refresh_seconds": "until all were refreshed, s",
    }
    for name, what in names.items():
        each = kept["compared"][name]
        rows.append(_row(what, f"{each['model']:,.1f}", f"{each['measured']:,.1f}", f"{each['ratio']:.2f}"))
    rows += [
        "",
        f"While it had something to do, the service had a processor for {kept['given']:.0%} of the time; the model was told so.",
    ]
    return "\n".join(rows) + "\n"


def with_tables(text: str, tables: str) -> str:
    """The text with these in place of what stands between its marks. Raises ValueError where it has none."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"There is no {_BEGIN} with an {_END} behind it")
    return f"{before}{_BEGIN}\n{tables}{_END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__)
    parser.add_argument("--grants", type=int, action="append", help=f"by default {_SIZES[0]} and {_SIZES[1]}")
    parser.add_argument("--lifetime", type=float, default=3600.0, help="of an access token, seconds")
    parser.add_argument("--fetches-per-grant-hour", type=float, default=4.0)
    parser.add_argument(
        "--hot", type=float, default=0.9, help="share of the fetches: of tokens just asked for"
    )
    parser.add_argument("--costs", type=Path, default=FOLDER / "latest.json")
    parser.add_argument("--check", action="store_true", help="measures the service, and compares")
    parser.add_argument("--into", type=Path, metavar="FILE", help="puts the tables between its marks")
    args = parser.parse_args()
    if args.check:
        check(sys.stdout.write)
        return
    costs = read_costs(args.costs)
    demands = [
        Demand(grants, args.lifetime, args.fetches_per_grant_hour, args.hot)
        for grants in args.grants or _SIZES
    ]
    tables = table([answer(demand, costs) for demand in demands]) + "\n" + compared_table(read(EXTRAS))
    if args.into:
        args.into.write_text(with_tables(args.into.read_text(), tables))
    else:
        sys.stdout.write(tables)


if __name__ == "__main__":
    main()
