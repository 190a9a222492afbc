"""A checker that cannot fail is worthless: each invariant meets a history that violates it, and one that does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults import answered, invariants
from tests.faults.evidence import Allowed, AttemptRow, Departure, Down, Evidence
from tests.faults.histories import (
    BURIED,
    DEAD,
    DELETED,
    GOOD,
    NOW,
    SPENT,
    TOMBSTONE,
    UNKNOWN,
    answers,
    attempts,
    ended,
    failed,
    failures,
    journaled,
    row,
    told,
    unanswered,
    upstream,
)

VIOLATED: list[tuple[Callable[..., object], Evidence]] = [
    (
        invariants.no_grant_is_lost,
        replace(GOOD, grants=[row(status="reconnect_required", reconnect_reason="lost_rotation")]),
    ),
    (invariants.no_grant_is_lost, replace(GOOD, grants=[row(fingerprint=SPENT)])),
    (invariants.no_grant_is_lost, replace(GOOD, grants=[row(fingerprint=UNKNOWN)])),
    (invariants.no_grant_is_lost, replace(GOOD, grants=[row(fingerprint=None)])),
    (invariants.no_grant_is_lost, upstream(families=DEAD)),
    (
        invariants.no_grant_is_lost,
        replace(GOOD, grants=[row(fingerprint=SPENT)] * 2, allowed=Allowed(losses=1)),
    ),
    (invariants.one_refresh_in_flight_per_grant, upstream(max_in_flight_by_user={"ada": 2})),
    (
        invariants.one_refresh_in_flight_per_grant,
        replace(upstream(max_in_flight_by_user={"ada": 3}), allowed=Allowed(pauses=True)),
    ),
    (invariants.generation_grows, attempts(2, 2)),
    (invariants.generation_grows, attempts(3, 2)),
    (invariants.generation_grows, attempts(1)),
    (invariants.every_journaled_set_ends_somewhere, journaled()),
    (
        invariants.every_journaled_set_ends_somewhere,
        journaled(AttemptRow("grant-ada", "l", "failed", 3, "fourth")),
    ),
    (invariants.every_journaled_set_ends_somewhere, journaled(candidates=frozenset({"third"}))),
    (invariants.every_journaled_set_ends_somewhere, replace(GOOD, outstanding={"replica-0.journal": 1})),
    (
        invariants.a_stale_failure_changes_nothing,
        failures(ended("dead", 2), status="reconnect_required", reconnect_reason="invalid_grant"),
    ),
    (
        invariants.a_stale_failure_changes_nothing,
        failures(
            ended("dead", 3, lineage="k"), status="reconnect_required", reconnect_reason="lost_rotation"
        ),
    ),
    (
        invariants.a_stale_failure_changes_nothing,
        failures(ended("failed", 3), status="reconnect_required", reconnect_reason="invalid_grant"),
    ),
    (invariants.a_stale_failure_changes_nothing, failures(ended("failed", 2), failures=1)),
    (
        invariants.a_stale_failure_changes_nothing,
        failures(ended("unknown", 3), ended("failed", 2), failures=2),
    ),
    (invariants.a_stale_failure_changes_nothing, failures(ended("failed", 3, lineage="k"), failures=1)),
    (answered.an_answered_generation_is_durable, answers(told(4))),
    (answered.a_generation_has_one_token, answers(told(2), told(2, access_token="ada-3"))),
    (answered.a_replaced_token_is_forgotten, answers(told(3), told(2, at=7))),
    (
        answered.a_replaced_token_is_forgotten,
        answers(told(3), told(2, at=63, degraded="database_unavailable")),
    ),
    (answered.a_refused_token_is_not_answered_again, answers(told(2, kind="refresh", named=2))),
    (invariants.a_spent_refresh_token_is_sent_only_under_policy, upstream(reuse_detected=1)),
    (invariants.a_spent_refresh_token_is_sent_only_under_policy, upstream(unknown_refresh_tokens=1)),
    (invariants.revoked_never_comes_back, replace(BURIED, answers=[DELETED, told(2, at=2.6)])),
    (invariants.revoked_never_comes_back, replace(BURIED, grants=[row()])),
    (
        invariants.what_is_deleted_is_dead_at_the_provider,
        replace(BURIED, upstream=GOOD.upstream),
    ),
    (answered.no_expired_token_is_answered, answers(told(2, at=31))),
    (answered.no_expired_token_is_answered, answers(told(2, expires_in=32))),
    (answered.no_foreign_token_is_answered, answers(told(2, access_token="eve-2"))),
    (answered.no_foreign_token_is_answered, answers(told(2, access_token="never issued"))),
    (invariants.every_claim_resolves, replace(GOOD, grants=[row(attempt_id="a", takeover_in=-3.0)])),
    (invariants.every_claim_resolves, replace(GOOD, unsettled=frozenset({"ada"}))),
    (answered.failures_can_be_tried_again, answers(failed("internal_error", 500))),
    (answered.failures_can_be_tried_again, answers(failed("grant_not_found", 404))),
    *(
        (answered.a_failure_says_when_to_come_back, answers(failed("", status, retry_after=None)))
        for status in (429, 503, 504)
    ),
    (answered.a_running_replica_answers, unanswered(9, seconds=0.9)),
    (answered.a_running_replica_answers, unanswered(15.1)),
    (answered.a_running_replica_answers, unanswered(19.7, seconds=0.5)),
    (answered.a_running_replica_answers, replace(unanswered(12), downs=[Down(1, NOW, NOW + 99)])),
    (invariants.sigterm_loses_nothing, replace(GOOD, departures=[Departure(0, code=-9, left=0)])),
    (invariants.sigterm_loses_nothing, replace(GOOD, departures=[Departure(0, code=0, left=1)])),
    (invariants.no_connection_is_held_upstream, replace(GOOD, idle_in_transaction_seconds=1.1)),
    (invariants.a_redirect_is_not_followed, upstream(elsewhere=1)),
    *(
        (invariants.no_plaintext_is_written, replace(GOOD, written={"replica-0.log": b"x " + secret + b" y"}))
        for secret in (
            b"srt_" + b"a" * 32,
            b"sat_" + b"-" * 32,
            b"brk_" + b"0" * 16 + b"_" + b"f" * 64,
            b"sandbox-secret",
        )
    ),
]

HELD: list[tuple[Callable[..., object], Evidence]] = [
    *((invariant, GOOD) for invariant in invariants.INVARIANTS),
    *((invariant, BURIED) for invariant in invariants.INVARIANTS),
    (
        invariants.no_grant_is_lost,
        replace(GOOD, grants=[row(fingerprint=SPENT)], allowed=Allowed(losses=1)),
    ),
    (invariants.no_grant_is_lost, replace(upstream(families=DEAD), withdrawn=frozenset({"ada"}))),
    (
        invariants.no_grant_is_lost,
        replace(upstream(grace_seconds=200.0), grants=[row(fingerprint=SPENT)]),
    ),
    (
        invariants.one_refresh_in_flight_per_grant,
        replace(upstream(max_in_flight_by_user={"ada": 2}), allowed=Allowed(pauses=True)),
    ),
    (invariants.generation_grows, attempts(2, 3, 5)),
    (
        invariants.every_journaled_set_ends_somewhere,
        journaled(AttemptRow("grant-ada", "l", "refreshed", 4, "fourth")),
    ),
    (
        invariants.every_journaled_set_ends_somewhere,
        journaled(AttemptRow("grant-ada", "l", "refreshed", 4, "fifth", code="candidate_adopted")),
    ),
    (invariants.every_journaled_set_ends_somewhere, journaled(candidates=frozenset({"fourth"}))),
    (invariants.every_journaled_set_ends_somewhere, journaled(grants=[row(lineage_id="m")])),
    (invariants.every_journaled_set_ends_somewhere, journaled(grants=[TOMBSTONE])),
    (
        invariants.a_stale_failure_changes_nothing,
        failures(ended("dead", 3), status="reconnect_required", reconnect_reason="lost_rotation", failures=1),
    ),
    (
        invariants.a_stale_failure_changes_nothing,
        failures(status="reconnect_required", reconnect_reason="no_refresh_token"),
    ),
    (invariants.a_stale_failure_changes_nothing, failures(ended("failed", 2))),
    (
        invariants.a_stale_failure_changes_nothing,
        # half an answer is a generation of its own, and the failures before it still count
        failures(ended("unknown", 3), ended("failed", 4), generation=4, failures=2),
    ),
    (answered.a_replaced_token_is_forgotten, answers(told(3), told(2, at=5))),
    (
        answered.a_replaced_token_is_forgotten,
        answers(told(3), told(2, at=20, degraded="database_unavailable")),
    ),
    (answered.a_refused_token_is_not_answered_again, answers(told(3, kind="refresh", named=2))),
    (
        invariants.a_spent_refresh_token_is_sent_only_under_policy,
        replace(upstream(reuse_detected=1), allowed=Allowed(reuse=1)),
    ),
    (invariants.revoked_never_comes_back, replace(BURIED, answers=[DELETED, told(2, at=2)])),
    (invariants.every_claim_resolves, replace(GOOD, grants=[row(attempt_id="a", takeover_in=20.0)])),
    (answered.failures_can_be_tried_again, answers(failed("provider_unavailable", 503))),
    (
        answered.failures_can_be_tried_again,
        answers(failed("reconnect_required", 409), withdrawn=frozenset({"ada"})),
    ),
    (answered.a_failure_says_when_to_come_back, answers(failed("reconnect_required", 409, retry_after=None))),
    (answered.a_running_replica_answers, unanswered(9, seconds=1.2)),
    (answered.a_running_replica_answers, unanswered(14.9, seconds=14)),
    (answered.a_running_replica_answers, unanswered(19.9, seconds=0.5)),
    (answered.a_running_replica_answers, unanswered(24)),
    (invariants.no_plaintext_is_written, replace(GOOD, written={"replica-0.log": b"srt_short brk_0 sat_"})),
]


def _name(value: object) -> str:
    return getattr(value, "__name__", "")


@pytest.mark.parametrize(("invariant", "evidence"), VIOLATED, ids=_name)
def test_what_violates_an_invariant_is_found_by_it_and_named(
    invariant: invariants.Invariant, evidence: Evidence
) -> None:
    assert list(invariant(evidence))
    assert invariant.__name__ in {found.invariant for found in invariants.violations(evidence)}


@pytest.mark.parametrize(("invariant", "evidence"), HELD, ids=_name)
def test_what_keeps_an_invariant_is_no_violation(invariant: invariants.Invariant, evidence: Evidence) -> None:
    assert list(invariant(evidence)) == []


def test_every_invariant_meets_a_history_that_violates_it() -> None:
    assert {invariant for invariant, _ in VIOLATED} == set(invariants.INVARIANTS)


def test_a_good_history_violates_nothing() -> None:
    assert invariants.violations(GOOD) == []
    assert invariants.violations(BURIED) == []
