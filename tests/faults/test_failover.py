"""The short form of what `python -m tests.faults --only failover` and `--only pgbouncer` do for longer."""

from __future__ import annotations

import pytest

from tests.faults import failover, pooler
from tests.faults.trial import SHORT, Outcome


async def test_the_loss_of_a_primary_costs_no_grant() -> None:
    """Twice, so that the second one is lost to a standby that was made under load."""
    _require_harmless(await failover.primary_killed(1, SHORT))


@pytest.mark.skipif(pooler.PROGRAM is None, reason=pooler.NEEDED)
async def test_the_loss_of_a_pooler_or_of_what_is_behind_it_costs_no_grant() -> None:
    _require_harmless(await pooler.behind_pooler(1, SHORT))


def _require_harmless(outcome: Outcome) -> None:
    assert list(outcome.violations) == [], outcome
    assert outcome.rotations > 0
    assert outcome.lost == 0
