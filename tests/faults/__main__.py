"""`python -m tests.faults [--seed N] [--only WORD] [--rounds N] [--report FILE]`: the long form, in minutes, and a table
of what it cost; the same in Markdown where a file is named.

Exits with 1 where an invariant was violated. A scenario that costs grants today says what that shows.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from tests.faults import (
    backlog,
    crowd,
    failover,
    hung,
    machine,
    outage,
    pooler,
    report,
    rewrap,
    scenarios,
    upstream,
)
from tests.faults.invariants import Violation
from tests.faults.replica import DEFAULT_LIMITS, LEASE_SECONDS
from tests.faults.scenario import DEADLINE_SECONDS, NOT_TO_ITS_END, Scenario
from tests.faults.trial import LONG, Outcome, Size

RACED = "a takeover that came due while PostgreSQL was away: callers send the spent token before the journal is replayed"
STALE = "the time since a token was issued is taken before T2 reaches PostgreSQL, so a hang in between adds to its life"


def _alone(
    run: Callable[[int, Size], Awaitable[Outcome]], size: Size = LONG
) -> Callable[[int], Awaitable[list[Outcome]]]:
    """A scenario that makes a world to its own needs."""

    async def outcomes(seed: int) -> list[Outcome]:
        return [await run(seed, size)]

    return outcomes


# Half of the callers wait for it in vain: it takes many of them, and a while, until one asks again once a claim is free.
PAUSED = partial(scenarios.replica_paused, seconds=LEASE_SECONDS + 5)
PATIENT = {"BREAKER_FAILURES": "1000"}
SCENARIOS: Mapping[str, Scenario] = {
    "thousand callers": Scenario(crowd.thousand_callers, replicas=3, access_ttl=600),
    "refreshes hang": Scenario(
        hung.refreshes_hang, "graced", replicas=1, access_ttl=3600, settings=DEFAULT_LIMITS
    ),
    "listener killed": Scenario(scenarios.listener_killed, replicas=3),
    "rolling restart": Scenario(scenarios.rolling_restart, delay=0.2, size=Size(60, 20)),
    "deletions": Scenario(scenarios.deletions),
    "postgres killed": Scenario(scenarios.postgres_killed, size=Size(120, 4, callers=16, rotations=5_000)),
    "postgres away": Scenario(
        partial(scenarios.postgres_killed, down=(10.0, 13.0)), delay=0.2, size=Size(60, 2), shows=RACED
    ),
    "postgres paused": Scenario(partial(scenarios.postgres_paused, hangs=(2.0, 4.0)), shows=STALE),
    "postgres hangs": Scenario(
        partial(scenarios.postgres_paused, hangs=(10.0, 13.0)), delay=0.2, size=Size(60, 2), shows=RACED
    ),
    "replica killed graced": Scenario(scenarios.replica_killed, "graced", delay=0.2, size=Size(60, 20)),
    "replica killed strict": Scenario(scenarios.replica_killed, delay=0.2, size=Size(60, 20)),
    "replica paused graced": Scenario(PAUSED, "graced", delay=0.2, size=Size(60, 2, callers=40)),
    "replica paused strict": Scenario(PAUSED, delay=0.2, size=Size(60, 2, callers=40)),
    "replica paused long strict": Scenario(
        partial(scenarios.replica_paused, seconds=40.0, long=True),
        replicas=3,
        delay=0.2,
        access_ttl=120,
        settings=DEFAULT_LIMITS,
        size=Size(60, 5, callers=24),
        deadline_seconds=480.0,
    ),
    "all killed graced": Scenario(scenarios.all_killed, "graced", delay=0.2),
    "all killed strict": Scenario(scenarios.all_killed, delay=0.2),
    **{
        f"upstream {when.__name__.split('_')[0]} {rotation}": Scenario(
            when, rotation, delay=0.0, settings=upstream.SETTINGS
        )
        for when in (upstream.before_processing, upstream.after_processing)
        for rotation in ("strict", "graced", "never")
    },
}
ALONE: Mapping[str, Callable[[int], Awaitable[list[Outcome]]]] = {
    "database disk full": _alone(machine.full_database_disk),
    "journal disk full": _alone(machine.full_journal_disk),
    "clock jumps": _alone(machine.clock_jumps),
    **{
        f"outage {kind}": _alone(partial(outage.hour_long, kind=kind), outage.SIZE) for kind in outage.OUTAGES
    },
    "failover": _alone(failover.primary_killed),
    "failover paused": _alone(failover.primary_paused),
    "failover late": _alone(failover.standby_first),
    "behind pgbouncer": _alone(pooler.behind_pooler),
    "pgbouncer away": _alone(pooler.pooler_away),
    "backlog": _alone(backlog.backlog),
    "rewrap": _alone(rewrap.rewrap),
}
LONGER = {
    "rewrap": rewrap.DEADLINE_SECONDS + DEADLINE_SECONDS,
    "backlog": backlog.SECONDS + DEADLINE_SECONDS,
    **{f"outage {kind}": 2 * DEADLINE_SECONDS for kind in outage.OUTAGES},
}


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def one(name: str, seed: int) -> list[Outcome]:
    """Its rows; where it cannot be run to its end, that is a violation too. Raises machine.Unavailable."""
    outcomes = SCENARIOS[name].outcomes if name in SCENARIOS else ALONE[name]
    deadline = LONGER.get(name, DEADLINE_SECONDS) if name in ALONE else SCENARIOS[name].deadline_seconds
    try:
        async with asyncio.timeout(deadline):
            return await outcomes(seed)
    except NOT_TO_ITS_END as error:
        traceback.print_exc()
        ended = Violation("a_scenario_comes_to_its_end", f"{type(error).__name__}: {error}"[:500])
        return [Outcome(name, seed, 0, 0, 0, 0, 0, [ended], deadline)]


async def table(names: list[str], seeds: list[int], file: Path | None) -> list[Outcome]:
    """Prints it as it comes about, and writes it to the file as far as it has come."""
    say(report.HEAD)
    outcomes = []
    for seed in seeds:
        for name in names:
            try:
                found = await one(name, seed)
            except machine.Unavailable as error:
                say(f"{name:32} left out: {error}")
                continue
            for outcome in found:
                for line in report.lines(outcome):
                    say(line)
            if any(outcome.violations for outcome in found) and name in SCENARIOS and SCENARIOS[name].shows:
                say(f"    ({SCENARIOS[name].shows})")
            outcomes += found
            if file is not None:
                await asyncio.to_thread(file.write_text, report.markdown(outcomes))
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Faults, injected for real.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="with the seeds that follow")
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORDS", help="part of a scenario's name"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="the table in Markdown")
    args = parser.parse_args()
    names = [
        name for name in (*SCENARIOS, *ALONE) if not args.only or any(words in name for words in args.only)
    ]
    seeds = [args.seed + number for number in range(args.rounds)]
    outcomes = asyncio.run(table(names, seeds, args.report))
    sys.exit(any(outcome.violations for outcome in outcomes))


if __name__ == "__main__":
    main()
