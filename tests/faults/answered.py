"""What callers must be told whatever was broken: the invariants over answers. `invariants` has the others, and runs all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.faults.evidence import NO_ANSWER, Answer, Down, Evidence

CLOCK_SLACK = 1.0  # seconds: rounding of `expires_in`, and the way of an answer
FORGOTTEN_WITHIN = 6.0  # what is remembered for five seconds, and one for the way
STALE_WITHIN = 62.0  # the same while PostgreSQL is away
SIGNAL_SLACK = 0.2  # seconds: a request on its way while a replica is told to end meets a closed door
# What a caller may be told while things are broken, and try again; anything else fails a user for no reason.
PASSING = {"overloaded", "provider_unavailable", "provider_error", "refresh_timeout", "rate_limited"}
COME_BACK = {429, 503, 504}


def an_answered_generation_is_durable(evidence: Evidence) -> Iterator[str]:
    """Nobody is given a token of a generation that a crash takes back."""
    stored = {row.id: row.generation for row in evidence.grants}
    for answer in with_token(evidence):
        if (answer.generation or 0) > stored.get(answer.grant_id or "", 0):
            yield f"{answer.user}: generation {answer.generation} was answered and is not stored"


def a_generation_has_one_token(evidence: Evidence) -> Iterator[str]:
    """All callers who are told the same generation are given the same token."""
    tokens: dict[tuple[str | None, int | None], str | None] = {}
    for answer in with_token(evidence):
        if tokens.setdefault((answer.grant_id, answer.generation), answer.access_token) != (
            answer.access_token
        ):
            yield f"{answer.user}: generation {answer.generation} was answered with two tokens"


def a_replaced_token_is_forgotten(evidence: Evidence) -> Iterator[str]:
    """Some seconds after a later generation was answered, no replica answers an earlier one."""
    by_grant: dict[str | None, list[Answer]] = defaultdict(list)
    for answer in with_token(evidence):
        by_grant[answer.grant_id].append(answer)
    for answers in by_grant.values():
        highest: list[Answer] = []  # answers that were news, in the order they came
        for answer in sorted(answers, key=lambda each: each.answered_at):
            within = STALE_WITHIN if answer.degraded == "database_unavailable" else FORGOTTEN_WITHIN
            known = [each for each in highest if each.answered_at + within < answer.asked_at]
            if known and (known[-1].generation or 0) > (answer.generation or 0):
                yield f"{answer.user}: generation {answer.generation}, long after {known[-1].generation}"
            if not highest or (answer.generation or 0) > (highest[-1].generation or 0):
                highest.append(answer)


def a_refused_token_is_not_answered_again(evidence: Evidence) -> Iterator[str]:
    """Who names the generation that a resource server refused is given a later one or none."""
    for answer in with_token(evidence):
        if answer.named is not None and (answer.generation or 0) <= answer.named:
            yield f"{answer.user}: asked for better than {answer.named}, given {answer.generation}"


def no_expired_token_is_answered(evidence: Evidence) -> Iterator[str]:
    """Neither one that was over when it was asked for, nor one that is said to last longer than it does."""
    for answer in with_token(evidence):
        _, expires = evidence.upstream.access_tokens.get(answer.access_token or "", ("", float("inf")))
        if expires < answer.asked_at:
            yield f"{answer.user}: a token that had ended {answer.asked_at - expires:.1f} s before"
        elif answer.asked_at + (answer.expires_in or 0) > expires + CLOCK_SLACK:
            yield f"{answer.user}: said to last {answer.expires_in} s, ends in {expires - answer.asked_at:.1f}"


def no_foreign_token_is_answered(evidence: Evidence) -> Iterator[str]:
    """Each token was issued by the provider, and to the very user it was asked for."""
    for answer in with_token(evidence):
        owner, _ = evidence.upstream.access_tokens.get(answer.access_token or "", (None, 0.0))
        if owner != answer.user:
            yield f"{answer.user}: was given a token of {owner or 'nobody'}"


def failures_can_be_tried_again(evidence: Evidence) -> Iterator[str]:
    """While things are broken callers are told to try again, and nothing else; a dead grant counts as lost instead."""
    gone = evidence.withdrawn | evidence.deleted_at().keys()
    for answer in evidence.answers:
        told = answer.status in (200, NO_ANSWER) or answer.user in gone
        if not told and answer.code not in PASSING | {"reconnect_required"}:
            yield f"{answer.user}: {answer.status} {answer.code} to {answer.kind}"


def a_failure_says_when_to_come_back(evidence: Evidence) -> Iterator[str]:
    """Each 429, 503 and 504 has a Retry-After."""
    for answer in evidence.answers:
        if answer.status in COME_BACK and answer.retry_after is None:
            yield f"{answer.user}: {answer.status} {answer.code} to {answer.kind}, and not when to come back"


def a_running_replica_answers(evidence: Evidence) -> Iterator[str]:
    """A connection is refused or lost only where a load balancer would have known, or could not have known better: the
    replica was killed, stopped or starting; or it had been told to end before it was asked."""
    for answer in evidence.answers:
        if answer.status == NO_ANSWER and not any(_explains(down, answer) for down in evidence.downs):
            waited = answer.answered_at - answer.asked_at
            how = f"to {answer.kind} after {waited:.1f} s ({answer.code})"
            yield f"{answer.user}: no answer of replica {answer.replica} {how}"


def _explains(down: Down, answer: Answer) -> bool:
    begins = answer.asked_at + SIGNAL_SLACK if down.gently else answer.answered_at
    return down.replica == answer.replica and down.since <= begins and answer.asked_at <= down.until


def with_token(evidence: Evidence) -> Iterator[Answer]:
    return (answer for answer in evidence.answers if answer.has_token)
