"""`python -m bench [--quick]`: the service against bare servers on one machine, in turn; a table, and with --keep results/.

Ratios count, and processor time by the system's account: times of the clock depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import asyncpg

from bench import fetches, footprint, refreshes
from bench.calendars import EVENTS, MANY_EVENTS, first_syncs
from bench.footprint import CACHED
from bench.grants import PROVIDER, bring_fresh
from bench.overload import overload
from bench.proxied import proxied
from bench.results import Results, here, keep
from bench.stage import Stage


@dataclass(frozen=True)
class Size:
    """How much of each. `cold`, `refreshes`: a round. Memory is looked at for so many seconds of load, or not at all."""

    rounds: int
    hot_seconds: float
    cold: int
    refreshes: int
    due: int
    starts: int
    overload_seconds: float
    memory_seconds: float
    calendars: Sequence[int]  # the sizes of those whose sync's memory is looked at, in events


WHOLE = Size(7, 3.0, 6000, 640, 5000, 5, 10.0, 600.0, (EVENTS, MANY_EVENTS))
QUICK = Size(3, 0.6, 1500, 128, 640, 2, 3.0, 0.0, (EVENTS,))


def run(stage: Stage, size: Size, say: Callable[[str], None]) -> Results:
    """Everything, one after the other."""
    began = time.perf_counter()
    results = Results(here(asyncio.run(_version(stage.url))), size.rounds)
    replica = stage.service()
    headers = stage.consumer(replica, "bench")
    users = CACHED if size.memory_seconds else size.cold * (size.rounds + 1)
    bring_fresh(stage.url, [f"hot-{number}" for number in range(fetches.BATCH)])
    bring_fresh(stage.url, [f"cold-{number}" for number in range(users)])
    say("fetches")
    hot = fetches.hot(stage, replica, headers, rounds=size.rounds, seconds=size.hot_seconds)
    cold = fetches.cold(stage, replica, headers, rounds=size.rounds, requests=size.cold)
    results.fetches = [hot, cold]
    say("refreshes")
    results.refreshes = refreshes.compare(stage, replica, rounds=size.rounds, refreshes=size.refreshes)
    results.due = refreshes.work_off(stage, replica, grants=size.due)
    say("overload")
    path = f"/tokens/{PROVIDER}/hot-0"
    results.overload = overload(stage, replica, path, headers, seconds=size.overload_seconds)
    stage.end(replica)
    _look_at_footprint(stage, size, results, say)
    say("calendars")
    results.calendars = first_syncs(stage, pairs=size.rounds, sizes=size.calendars)
    say("proxied calls")
    results.proxied = proxied(stage, rounds=size.rounds, seconds=size.hot_seconds)
    results.took_seconds = time.perf_counter() - began
    return results


def _look_at_footprint(stage: Stage, size: Size, results: Results, say: Callable[[str], None]) -> None:
    say("starts")
    results.starts = footprint.starts(stage, times=size.starts)
    results.memory = results.starts.memory
    if not size.memory_seconds:
        results.left_out.append(f"memory with {CACHED:,} tokens and over minutes of load, which need minutes")
        return
    say("memory")
    replica = stage.service()
    memory = footprint.after_start(replica)
    headers = stage.consumer(replica, "memory")
    memory = footprint.with_cached(stage.driver, replica, headers, memory)
    results.memory = footprint.under_load(stage.driver, replica, headers, memory, seconds=size.memory_seconds)
    stage.end(replica)


async def _version(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        return str(await connection.fetchval("SHOW server_version")).split()[0]
    finally:
        await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="fewer and shorter rounds: about a minute and a half"
    )
    parser.add_argument("--keep", metavar="NAME", help="writes results/NAME.json, .md and .png")
    args = parser.parse_args()

    began = time.perf_counter()

    def say(what: str) -> None:
        sys.stderr.write(f"{time.perf_counter() - began:4.0f} s  {what}\n")

    with Stage.running() as stage:
        results = run(stage, QUICK if args.quick else WHOLE, say)
    sys.stdout.write(results.table())
    if args.keep:
        from bench.plots import draw  # wants matplotlib, which nothing else here does
        from bench.results import FOLDER, read

        kept, _ = keep(results, args.keep)
        draw(read(kept), FOLDER / f"{args.keep}.png")
    say("done")


if __name__ == "__main__":
    main()
