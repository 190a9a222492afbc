"""A checker that cannot fail is worthless: each invariant meets a history that violates it, and one that does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import pytest

from tests.faults import invariants
from tests.faults.evidence import (
    NO_ANSWER,
    Allowed,
    Answer,
    AttemptRow,
    Evidence,
    Family,
    GrantRow,
    RefreshToken,
    Upstream,
)

NOW = 1_700_000_000.0
LIVE, SPENT, UNKNOWN = (sha256(name).digest() for name in (b"live", b"spent", b"unknown"))


def told(generation: int = 2, *, at: float = 0.0, user: str = "ada", **more: object) -> Answer:
    """A token, half a second after it was asked for."""
    answer = Answer(
        asked_at=NOW + at,
        answered_at=NOW + at + 0.5,
        kind="fetch",
        user=user,
        replica=0,
        status=200,
        grant_id=f"grant-{user}",
        generation=generation,
        access_token=f"{user}-{generation}",
        expires_in=20,
    )
    return replace(answer, **more)  # type: ignore[arg-type]


def failed(code: str, status: int, **more: object) -> Answer:
    return told(**{"status": status, "code": code, "access_token": None, **more})  # type: ignore[arg-type]


def row(**more: object) -> GrantRow:
    return replace(GrantRow("grant-ada", "ada", "active", None, 3, LIVE), **more)  # type: ignore[arg-type]


GOOD = Evidence(
    answers=[told(2), told(3, at=1.0), failed("overloaded", 503), failed("", NO_ANSWER)],
    upstream=Upstream(
        families={"f": Family("ada", revoked=False)},
        refresh_tokens={LIVE: RefreshToken("f", None), SPENT: RefreshToken("f", NOW - 100)},
        access_tokens={"ada-2": ("ada", NOW + 30), "ada-3": ("ada", NOW + 30), "eve-2": ("eve", NOW + 30)},
        max_in_flight_by_user={"ada": 1},
        refreshes=2,
    ),
    grants=[row()],
    attempts=[AttemptRow("grant-ada", "l", "refreshed", 2), AttemptRow("grant-ada", "l", "refreshed", 3)],
    written={"replica-0.log": b'{"event": "refresh", "outcome": "refreshed"}'},
    collected_at=NOW + 10,
)


def upstream(**more: object) -> Evidence:
    return replace(GOOD, upstream=replace(GOOD.upstream, **more))  # type: ignore[arg-type]


def answers(*given: Answer, **more: object) -> Evidence:
    return replace(GOOD, answers=given, **more)  # type: ignore[arg-type]


def attempts(*generations: int) -> Evidence:
    return replace(GOOD, attempts=[AttemptRow("grant-ada", "l", "refreshed", each) for each in generations])


DELETED = told(2, kind="delete", access_token=None)
DEAD = {"f": Family("ada", revoked=True)}
TOMBSTONE = row(status="revoked", fingerprint=None)
BURIED = replace(
    GOOD,
    answers=[DELETED, failed("grant_not_found", 404, at=9)],
    grants=[TOMBSTONE],
    upstream=replace(GOOD.upstream, families=DEAD),
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
    (invariants.an_answered_generation_is_durable, answers(told(4))),
    (invariants.a_generation_has_one_token, answers(told(2), told(2, access_token="ada-3"))),
    (invariants.a_replaced_token_is_forgotten, answers(told(3), told(2, at=7))),
    (
        invariants.a_replaced_token_is_forgotten,
        answers(told(3), told(2, at=63, degraded="database_unavailable")),
    ),
    (invariants.a_refused_token_is_not_answered_again, answers(told(2, kind="refresh", named=2))),
    (invariants.a_spent_refresh_token_is_sent_only_under_policy, upstream(reuse_detected=1)),
    (invariants.a_spent_refresh_token_is_sent_only_under_policy, upstream(unknown_refresh_tokens=1)),
    (invariants.revoked_never_comes_back, replace(BURIED, answers=[DELETED, told(2, at=2.6)])),
    (invariants.revoked_never_comes_back, replace(BURIED, grants=[row()])),
    (
        invariants.what_is_deleted_is_dead_at_the_provider,
        replace(BURIED, upstream=GOOD.upstream),
    ),
    (invariants.no_expired_token_is_answered, answers(told(2, at=31))),
    (invariants.no_expired_token_is_answered, answers(told(2, expires_in=32))),
    (invariants.no_foreign_token_is_answered, answers(told(2, access_token="eve-2"))),
    (invariants.no_foreign_token_is_answered, answers(told(2, access_token="never issued"))),
    (invariants.every_claim_resolves, replace(GOOD, grants=[row(attempt_id="a", takeover_in=-3.0)])),
    (invariants.every_claim_resolves, replace(GOOD, unsettled=frozenset({"ada"}))),
    (invariants.failures_can_be_tried_again, answers(failed("internal_error", 500))),
    (invariants.failures_can_be_tried_again, answers(failed("grant_not_found", 404))),
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
    (invariants.a_replaced_token_is_forgotten, answers(told(3), told(2, at=5))),
    (
        invariants.a_replaced_token_is_forgotten,
        answers(told(3), told(2, at=20, degraded="database_unavailable")),
    ),
    (invariants.a_refused_token_is_not_answered_again, answers(told(3, kind="refresh", named=2))),
    (
        invariants.a_spent_refresh_token_is_sent_only_under_policy,
        replace(upstream(reuse_detected=1), allowed=Allowed(reuse=1)),
    ),
    (invariants.revoked_never_comes_back, replace(BURIED, answers=[DELETED, told(2, at=2)])),
    (invariants.every_claim_resolves, replace(GOOD, grants=[row(attempt_id="a", takeover_in=20.0)])),
    (invariants.failures_can_be_tried_again, answers(failed("provider_unavailable", 503))),
    (
        invariants.failures_can_be_tried_again,
        answers(failed("reconnect_required", 409), withdrawn=frozenset({"ada"})),
    ),
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
