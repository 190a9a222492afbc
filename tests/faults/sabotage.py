"""`python -m tests.faults.sabotage [--only WORDS] [--seed N] [--rounds N] [--intact]`, or `make sabotage`: whether the fault
suite would notice. Each invariant is seen to be violated, by name, in a build of the service that is broken in one place.

Replicas run a copy of `app/` in which one text is replaced; PostgreSQL, the provider and the suite are what they always are.
Prints a row for each build of `sabotages`, and exits with 1 where one was not found out by the invariant it is meant for. With
`--intact` nothing is replaced, and nothing must be found: so that it is the break that is found, and not the scenario.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.faults.broken import Sabotage
from tests.faults.invariants import Violation
from tests.faults.sabotages import SABOTAGES
from tests.faults.scenario import NOT_TO_ITS_END

DEADLINE_SECONDS = 150.0  # of any one of them
HEAD = f"{'invariant':50} {'what was broken':66} {'seconds':>7}  found by"


@dataclass(frozen=True)
class Finding:
    """What was found in a build."""

    sabotage: Sabotage
    violations: Sequence[Violation]
    seconds: float

    @property
    def invariants(self) -> list[str]:
        return list(dict.fromkeys(violation.invariant for violation in self.violations))

    def row(self, *, intact: bool) -> str:
        what = "(nothing)" if intact else self.sabotage.what
        found = ", ".join(self.invariants) or "nobody"
        return f"{self.sabotage.invariant:50} {what:66} {self.seconds:>7.1f}  {found}"


async def found_in(sabotage: Sabotage, seed: int, *, intact: bool = False) -> Finding:
    """Runs its scenario. That it does not come to an end is a violation, too."""
    began = time.monotonic()
    try:
        with sabotage.build(intact=intact) as source:
            async with asyncio.timeout(DEADLINE_SECONDS):
                outcomes = await sabotage.scenario.outcomes(seed, source=source)
        violations = [violation for outcome in outcomes for violation in outcome.violations]
    except NOT_TO_ITS_END as error:
        violations = [Violation("a_scenario_comes_to_its_end", f"{type(error).__name__}: {error}"[:2000])]
    return Finding(sabotage, violations, time.monotonic() - began)


async def table(sabotages: Sequence[Sabotage], seeds: Sequence[int], *, intact: bool) -> bool:
    """Prints it as it comes about; whether all was as it should be."""
    say(HEAD)
    is_good = True
    for seed in seeds:
        for sabotage in sabotages:
            finding = await found_in(sabotage, seed, intact=intact)
            say(finding.row(intact=intact))
            as_meant = not finding.violations if intact else sabotage.invariant in finding.invariants
            if not as_meant:
                is_good = False
                for violation in finding.violations[:5]:
                    say(f"    {violation.invariant}: {violation.detail}")
                say(f"    seed {seed}: " + ("this is no violation" if intact else "not found out"))
    return is_good


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.sabotage", description="Whether it would be noticed."
    )
    parser.add_argument("--only", action="append", default=[], metavar="WORDS", help="part of a row's words")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="with the seeds that follow")
    parser.add_argument("--intact", action="store_true", help="the scenarios, with nothing broken")
    args = parser.parse_args()
    chosen = [
        each
        for each in SABOTAGES
        if not args.only or any(words in f"{each.invariant} {each.what}" for words in args.only)
    ]
    if args.intact:
        chosen = list({id(each.scenario): each for each in chosen}.values())
    seeds = range(args.seed, args.seed + args.rounds)
    sys.exit(not asyncio.run(table(chosen, seeds, intact=args.intact)))


if __name__ == "__main__":
    main()
