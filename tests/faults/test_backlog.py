"""The short form of the backlog: the same at a hundredth of its size."""

from __future__ import annotations

from tests.faults.backlog import GRANTS_IN_SHORT, backlog
from tests.faults.trial import SHORT


async def test_a_backlog_is_worked_off_once_and_fairly_while_callers_are_answered() -> None:
    outcome = await backlog(1, SHORT)
    assert list(outcome.violations) == [], outcome
    assert outcome.rotations == GRANTS_IN_SHORT
