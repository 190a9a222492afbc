"""A checker that cannot fail is worthless: each invariant of the protocol meets a history that violates it, and one that
does not; and nothing is excused but what it was meant for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults.evidence import Journaled
from tests.faults.protocol.excuses import excused
from tests.faults.protocol.history import Attempt, Change, History, Kept, Sending, State
from tests.faults.protocol.invariants import violations

FIRST, SECOND, OTHER = b"first", b"second", b"other"
GRANT, LINEAGE, ATTEMPT = "grant-ada", "lineage", "attempt"


def state(generation: int = 1, fingerprint: bytes | None = FIRST, **more: object) -> State:
    made = State("active", LINEAGE, generation, 2, None, fingerprint)
    return replace(made, **more)  # type: ignore[arg-type]


def change(before: State | None, after: State, attempt: Attempt | None = None) -> Change:
    return Change(GRANT, "ada", before, after, attempt)


def sending(**more: object) -> Sending:
    """An answer that was heard and kept."""
    made = Sending(
        "ada",
        "family",
        "0.1",
        ATTEMPT,
        FIRST,
        100.0,
        130.0,
        ending="answered",
        issued=SECOND,
        ended_at=100.1,
    )
    made.is_heard = made.is_kept = True
    return replace(made, **more)  # type: ignore[arg-type]


BORN = change(None, state())
CLAIMED = change(state(), state(epoch=2, attempt_id=ATTEMPT))
GOOD_ANSWER = Attempt(ATTEMPT, LINEAGE, 2, has_tokens=True)
FAILURE = Attempt(ATTEMPT, LINEAGE, 1, has_tokens=False)
REFRESHED = change(state(epoch=2, attempt_id=ATTEMPT), state(2, SECOND), GOOD_ANSWER)
FAILED = change(state(epoch=2, attempt_id=ATTEMPT), state(epoch=2), FAILURE)
KEPT = Kept(Journaled(ATTEMPT, GRANT, LINEAGE, 1), SECOND, sending())


def history(*changes: Change, **more: object) -> History:
    made = History(is_strict=True, sendings=[sending()], journaled=[KEPT], changes=list(changes))
    return replace(made, **more)  # type: ignore[arg-type]


RECONNECTED = state(2, OTHER, lineage_id="another")
TOMBSTONE = state(1, None, status="revoked")


@pytest.mark.parametrize(
    "good",
    [
        history(BORN, CLAIMED, REFRESHED),
        history(BORN, CLAIMED, FAILED, journaled=[]),
        history(
            BORN, CLAIMED, change(CLAIMED.after, RECONNECTED)
        ),  # the answer is dropped for the new lineage
        history(BORN, CLAIMED, change(CLAIMED.after, TOMBSTONE)),
        history(BORN, CLAIMED, candidates=frozenset({ATTEMPT})),
        history(BORN, CLAIMED, REFRESHED, sendings=[sending(ending="lost: reset"), sending(at=130.0)]),
        history(BORN, CLAIMED, REFRESHED, sendings=[sending(ending="not processed: 503"), sending(at=101.0)]),
        history(
            BORN,
            CLAIMED,
            REFRESHED,
            is_strict=False,
            sendings=[sending(ending="lost: reset"), sending(at=101.0)],
        ),
    ],
)
def test_what_may_happen_violates_nothing(good: History) -> None:
    assert violations(good) == []


@pytest.mark.parametrize(
    ("invariant", "bad"),
    [
        ("what_was_journaled_is_where_it_belongs", history(BORN, CLAIMED)),
        (
            "a_failure_ends_its_own_claim_only",
            history(
                BORN,
                CLAIMED,
                change(state(epoch=3, attempt_id="somebody's"), state(epoch=3), FAILURE),
                journaled=[],
            ),
        ),
        (
            "a_failure_ends_its_own_claim_only",
            history(BORN, CLAIMED, REFRESHED, change(REFRESHED.after, REFRESHED.after, FAILURE)),
        ),
        (
            "an_answer_replaces_only_what_was_sent_for_it",
            history(BORN, change(state(2, OTHER), state(3, SECOND), GOOD_ANSWER)),
        ),
        (
            "what_may_be_spent_is_left_alone",
            history(BORN, CLAIMED, REFRESHED, sendings=[sending(ending="lost: reset"), sending(at=129.0)]),
        ),
        (
            "what_may_be_spent_is_left_alone",
            history(BORN, CLAIMED, REFRESHED, sendings=[sending(is_killed=True), sending(at=126.0)]),
        ),
        (
            "what_may_be_spent_is_left_alone",
            history(BORN, CLAIMED, REFRESHED, sendings=[sending(ended_at=127.0), sending(at=126.0)]),
        ),
        ("nothing_goes_back", history(BORN, REFRESHED, change(REFRESHED.after, state(1, SECOND, epoch=2)))),
        ("nothing_goes_back", history(BORN, REFRESHED, change(REFRESHED.after, state(2, OTHER)))),
        (
            "nothing_goes_back",
            history(change(None, TOMBSTONE), change(TOMBSTONE, state(1, None)), journaled=[]),
        ),
    ],
)
def test_each_invariant_of_the_protocol_can_be_violated(invariant: str, bad: History) -> None:
    assert {each.invariant for each in violations(bad)} == {invariant}


@pytest.mark.parametrize(
    ("found", "strict", "elsewhere"),
    [
        (history(), False, False),
        (history(sendings=[sending(is_heard=False, is_kept=False, ending="lost: reset")]), True, False),
        (history(sendings=[sending(is_killed=True, is_kept=False)]), True, False),
        (history(sendings=[sending(is_killed=True)]), False, False),  # it was in the journal by then
        (history(sendings=[sending(issued=None, is_heard=False, ending="not processed: 503")]), False, False),
        (history(stood_still={"family"}), True, False),
        (history(sendings=[sending(ending="called dead", issued=None)]), False, False),
        (history(sendings=[sending(ending="called dead", issued=None, is_probe=True)]), True, True),
        (
            history(
                sendings=[sending(is_half=True), sending(spends=SECOND, ending="called dead", issued=None)]
            ),
            True,
            False,
        ),
    ],
)
def test_a_loss_is_excused_where_nobody_could_help_it(found: History, strict: bool, elsewhere: bool) -> None:
    assert bool(excused(found)) is strict
    assert bool(excused(replace(found, is_strict=False))) is elsewhere
