"""The suite would notice: the short form of `python -m tests.faults.sabotage`, and what keeps its list from rotting."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

import pytest

from tests.faults import moments
from tests.faults.broken import Sabotage
from tests.faults.invariants import INVARIANTS
from tests.faults.processes import REPOSITORY
from tests.faults.sabotage import found_in
from tests.faults.sabotages import SABOTAGES
from tests.faults.stages import ALL_WELL
from tests.faults.trial import Size

SEED = 1
QUICK = ("a_refused_token_is_not_answered_again", "no_foreign_token_is_answered")


def test_every_invariant_is_violated_by_a_broken_build_and_no_other_is_expected() -> None:
    assert {sabotage.invariant for sabotage in SABOTAGES} == {invariant.__name__ for invariant in INVARIANTS}


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage.what)
def test_what_is_to_be_broken_is_there_once_and_is_python_when_it_is_broken(sabotage: Sabotage) -> None:
    compile(sabotage.broken(), sabotage.file, "exec")


def test_a_text_that_is_not_there_or_is_there_twice_breaks_nothing_silently() -> None:
    for text in ("this is nowhere in it", "import"):
        with pytest.raises(ValueError, match="had to be once"):
            replace(SABOTAGES[0], text=text).broken()


def test_only_the_copy_is_broken_and_it_is_gone_afterwards() -> None:
    sabotage = SABOTAGES[0]
    before = (REPOSITORY / "app" / sabotage.file).read_text()
    with sabotage.build() as folder:
        assert (folder / "app" / sabotage.file).read_text() == sabotage.broken() != before
        assert (folder / "migrations" / "env.py").exists()
        assert (REPOSITORY / "app" / sabotage.file).read_text() == before
    assert not folder.exists()


async def test_a_broken_build_is_found_out_by_the_invariant_it_violates_and_a_sound_one_is_not() -> None:
    """Side by side: most of it is waiting for processes to start."""
    calm = replace(ALL_WELL, replicas=1, run=partial(moments.all_well, seconds=3.0))
    broken = [
        replace(
            next(each for each in SABOTAGES if each.invariant == name and each.scenario is ALL_WELL),
            scenario=replace(calm, size=Size(6, 0, callers=4, settle=0.5)),
        )
        for name in QUICK
    ]
    sound = replace(broken[0], scenario=replace(calm, size=Size(6, 0, callers=4)))
    *findings, nothing = await asyncio.gather(
        *(found_in(sabotage, SEED) for sabotage in broken), found_in(sound, SEED, intact=True)
    )
    for name, finding in zip(QUICK, findings, strict=True):
        assert name in finding.invariants, finding
    assert nothing.invariants == [], nothing
