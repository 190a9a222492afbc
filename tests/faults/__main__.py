"""`python -m tests.faults [--seed N] [--only WORD] [--rounds N]`: the long form, in minutes, and a table of what it cost.

Exits with 1 where an invariant was violated. A scenario that costs grants today says what that shows.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from tests.faults import machine, scenarios, upstream
from tests.faults.invariants import Violation
from tests.faults.provider import Rotation
from tests.faults.supervisor import World
from tests.faults.trial import LONG, Outcome, Size

DEADLINE_SECONDS = 300.0  # of any one scenario
Run = Callable[[World, int, Size], Awaitable[Outcome | list[Outcome]]]
RACED = "a takeover that came due while PostgreSQL was away: callers send the spent token before the journal is replayed"
STALE = "the time since a token was issued is taken before T2 reaches PostgreSQL, so a hang in between adds to its life"


@dataclass(frozen=True)
class Scenario:
    """What `run` is run on, in a world of its own. `shows`: why it costs grants today."""

    run: Run
    rotation: Rotation = "strict"
    replicas: int = 2
    delay: float = 0.03
    settings: Mapping[str, str] = field(default_factory=dict)
    size: Size = LONG
    shows: str = ""

    async def outcomes(self, seed: int) -> list[Outcome]:
        async with World.running(
            rotation=self.rotation, replicas=self.replicas, delay=self.delay, settings=self.settings
        ) as world:
            found = await self.run(world, seed, self.size)
        return found if isinstance(found, list) else [found]


def _alone(run: Callable[[int, Size], Awaitable[Outcome]]) -> Callable[[int], Awaitable[list[Outcome]]]:
    """A scenario that makes a world to its own needs."""

    async def outcomes(seed: int) -> list[Outcome]:
        return [await run(seed, LONG)]

    return outcomes


PATIENT = {"BREAKER_FAILURES": "1000"}
SCENARIOS: Mapping[str, Scenario] = {
    "thousand callers": Scenario(scenarios.thousand_callers, replicas=3, delay=0.5),
    "listener killed": Scenario(scenarios.listener_killed, replicas=3),
    "rolling restart": Scenario(scenarios.rolling_restart, delay=0.2),
    "deletions": Scenario(scenarios.deletions),
    "postgres killed": Scenario(scenarios.postgres_killed),
    "postgres away": Scenario(
        partial(scenarios.postgres_killed, down=(10.0, 13.0)), delay=0.2, size=Size(60, 2), shows=RACED
    ),
    "postgres paused": Scenario(partial(scenarios.postgres_paused, hangs=(2.0, 4.0)), shows=STALE),
    "postgres hangs": Scenario(
        partial(scenarios.postgres_paused, hangs=(10.0, 13.0)), delay=0.2, size=Size(60, 2), shows=RACED
    ),
    "replica killed graced": Scenario(scenarios.replica_killed, "graced", delay=0.2),
    "replica killed strict": Scenario(scenarios.replica_killed, delay=0.2),
    "replica paused graced": Scenario(scenarios.replica_paused, "graced", delay=0.2, size=Size(60, 2)),
    "replica paused strict": Scenario(scenarios.replica_paused, delay=0.2, size=Size(60, 2)),
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
}


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def row(outcome: Outcome) -> str:
    return (
        f"{outcome.scenario:32} {outcome.seed:>5} {outcome.rotations:>9} {outcome.crashes:>7} "
        f"{outcome.grants:>6} {outcome.lost:>5} {outcome.allowed:>7} {len(outcome.violations):>10} {outcome.seconds:>7.1f}"
    )


async def one(name: str, seed: int) -> list[Outcome]:
    """Its rows; where it cannot be run to its end, that is a violation too. Raises machine.Unavailable."""
    outcomes = SCENARIOS[name].outcomes if name in SCENARIOS else ALONE[name]
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await outcomes(seed)
    except (AssertionError, TimeoutError, OSError, ExceptionGroup) as error:
        traceback.print_exc()
        ended = Violation("a_scenario_comes_to_its_end", f"{type(error).__name__}: {error}"[:500])
        return [Outcome(name, seed, 0, 0, 0, 0, 0, [ended], DEADLINE_SECONDS)]


async def table(names: list[str], seeds: list[int]) -> bool:
    """Prints it as it comes about; whether all was well."""
    say("scenario                          seed rotations crashes grants  lost allowed violations seconds")
    well = True
    for seed in seeds:
        for name in names:
            try:
                outcomes = await one(name, seed)
            except machine.Unavailable as error:
                say(f"{name:32} left out: {error}")
                continue
            for outcome in outcomes:
                say(row(outcome))
                for violation in outcome.violations[:8]:
                    say(f"    {violation.invariant}: {violation.detail}")
                well = well and not outcome.violations
            if (
                any(outcome.violations for outcome in outcomes)
                and name in SCENARIOS
                and SCENARIOS[name].shows
            ):
                say(f"    ({SCENARIOS[name].shows})")
    return well


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Faults, injected for real.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="with the seeds that follow")
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORDS", help="part of a scenario's name"
    )
    args = parser.parse_args()
    names = [
        name for name in (*SCENARIOS, *ALONE) if not args.only or any(words in name for words in args.only)
    ]
    sys.exit(not asyncio.run(table(names, [args.seed + number for number in range(args.rounds)])))


if __name__ == "__main__":
    main()
