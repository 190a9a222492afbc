"""Outcomes as text: a table that is printed as it comes about, and one in Markdown to paste into the documentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.faults.trial import Outcome

HEAD = "scenario                          seed rotations crashes grants  lost allowed violations seconds"
SHOWN_VIOLATIONS = 8


def lines(outcome: Outcome) -> Iterator[str]:
    """Its row, what was measured, and what was violated."""
    yield (
        f"{outcome.scenario:32} {outcome.seed:>5} {outcome.rotations:>9} {outcome.crashes:>7} "
        f"{outcome.grants:>6} {outcome.lost:>5} {outcome.allowed:>7} {len(outcome.violations):>10} {outcome.seconds:>7.1f}"
    )
    for figure in outcome.figures:
        yield f"    {figure}"
    for violation in outcome.violations[:SHOWN_VIOLATIONS]:
        yield f"    {violation.invariant}: {violation.detail}"


def markdown(outcomes: Sequence[Outcome]) -> str:
    """A row each, and below the table what was measured beside."""
    rows = [
        "| scenario | seed | faults | rotations | grants | lost | lost by nature, at most | violations |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
        *(
            f"| {each.scenario} | {each.seed} | {each.crashes} | {each.rotations:,} | {each.grants} | {each.lost} | "
            f"{each.allowed} | {len(each.violations)} |"
            for each in outcomes
        ),
    ]
    figures = [f"- {each.scenario}: {figure}" for each in outcomes for figure in each.figures]
    return "\n".join([*rows, *([""] if figures else []), *figures]) + "\n"
