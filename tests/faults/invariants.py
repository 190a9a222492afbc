"""What must hold whatever was broken: each invariant is a function from `Evidence` to its violations, in sentences.

`violations` runs them all. Nothing here knows how the evidence came about.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.faults.evidence import NO_ANSWER, Answer, Evidence, GrantRow

CLOCK_SLACK = 1.0  # seconds: rounding of `expires_in`, and the way of an answer
REVOKED_WITHIN = 2.0
FORGOTTEN_WITHIN = 6.0  # what is remembered for five seconds, and one for the way
STALE_WITHIN = 62.0  # the same while PostgreSQL is away
TAKEOVER_SLACK = 2.0
SECRETS = re.compile(rb"s[ar]t_[A-Za-z0-9_-]{32}|brk_[0-9a-f]{16}_[0-9a-f]{64}|sandbox-secret")
# What a caller may be told while things are broken, and try again; anything else fails a user for no reason.
PASSING = {"overloaded", "provider_unavailable", "provider_error", "refresh_timeout", "rate_limited"}


@dataclass(frozen=True)
class Violation:
    invariant: str
    detail: str


Invariant = Callable[[Evidence], Iterator[str]]


def lost(evidence: Evidence) -> list[GrantRow]:
    """Grants that nobody revoked and that are of no use any more: called dead, or with a refresh token that is."""
    deleted = evidence.deleted_at()
    gone = evidence.withdrawn | deleted.keys()
    return [
        row
        for row in evidence.grants
        if row.user not in gone and (row.status != "active" or not _is_live(evidence, row))
    ]


def _is_live(evidence: Evidence, row: GrantRow) -> bool:
    """Whether the provider would still refresh with what is stored."""
    token = evidence.upstream.refresh_tokens.get(row.fingerprint or b"")
    if token is None or evidence.upstream.families[token.family_id].revoked:
        return False
    grace = evidence.upstream.grace_seconds
    return token.spent_at is None or (
        grace is not None and evidence.collected_at < token.spent_at + grace - CLOCK_SLACK
    )


def no_grant_is_lost(evidence: Evidence) -> Iterator[str]:
    """By us, that is: beyond what the scenario destroys by its nature."""
    gone = lost(evidence)
    if len(gone) > evidence.allowed.losses:
        named = ", ".join(f"{row.user} ({row.reconnect_reason or row.status})" for row in gone[:5])
        yield f"{len(gone)} of {len(evidence.grants)} lost, {evidence.allowed.losses} allowed: {named}"


def one_refresh_in_flight_per_grant(evidence: Evidence) -> Iterator[str]:
    """Counted at the provider; where a process stood still, its late request may meet that of its successor."""
    most = 2 if evidence.allowed.pauses else 1
    for user, seen in evidence.upstream.max_in_flight_by_user.items():
        if seen > most:
            yield f"{user}: {seen} refreshes in flight at once"


def generation_grows(evidence: Evidence) -> Iterator[str]:
    """Each refresh that is written down has a generation of its own, higher than those before it."""
    last: dict[tuple[str, str], int] = {}
    for attempt in evidence.attempts:
        key = (attempt.grant_id, attempt.lineage_id)
        if attempt.outcome == "refreshed":
            if attempt.generation <= last.get(key, 0):
                yield f"{attempt.grant_id}: generation {attempt.generation} after {last[key]}"
            last[key] = attempt.generation


def an_answered_generation_is_durable(evidence: Evidence) -> Iterator[str]:
    """Nobody is given a token of a generation that a crash takes back."""
    stored = {row.id: row.generation for row in evidence.grants}
    for answer in _with_token(evidence):
        if (answer.generation or 0) > stored.get(answer.grant_id or "", 0):
            yield f"{answer.user}: generation {answer.generation} was answered and is not stored"


def a_generation_has_one_token(evidence: Evidence) -> Iterator[str]:
    """All callers who are told the same generation are given the same token."""
    tokens: dict[tuple[str | None, int | None], str | None] = {}
    for answer in _with_token(evidence):
        if tokens.setdefault((answer.grant_id, answer.generation), answer.access_token) != (
            answer.access_token
        ):
            yield f"{answer.user}: generation {answer.generation} was answered with two tokens"


def a_replaced_token_is_forgotten(evidence: Evidence) -> Iterator[str]:
    """Some seconds after a later generation was answered, no replica answers an earlier one."""
    by_grant: dict[str | None, list[Answer]] = defaultdict(list)
    for answer in _with_token(evidence):
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
    for answer in _with_token(evidence):
        if answer.named is not None and (answer.generation or 0) <= answer.named:
            yield f"{answer.user}: asked for better than {answer.named}, given {answer.generation}"


def a_spent_refresh_token_is_sent_only_under_policy(evidence: Evidence) -> Iterator[str]:
    """Reuse that the provider detected, beyond what the scenario makes unavoidable; and tokens never issued."""
    if evidence.upstream.reuse_detected > evidence.allowed.reuse:
        yield f"{evidence.upstream.reuse_detected} spent tokens sent, {evidence.allowed.reuse} allowed"
    if evidence.upstream.unknown_refresh_tokens:
        yield f"{evidence.upstream.unknown_refresh_tokens} refresh tokens sent that were never issued"


def revoked_never_comes_back(evidence: Evidence) -> Iterator[str]:
    """Two seconds after a deletion was answered nobody is given a token of that grant, and its row stays a tombstone."""
    deleted = evidence.deleted_at()
    for answer in _with_token(evidence):
        if answer.asked_at > deleted.get(answer.user, float("inf")) + REVOKED_WITHIN:
            yield f"{answer.user}: answered {answer.asked_at - deleted[answer.user]:.1f} s after its deletion"
    for row in evidence.grants:
        if row.user in deleted and (row.status != "revoked" or row.fingerprint is not None):
            yield f"{row.user}: is {row.status} after its deletion"


def what_is_deleted_is_dead_at_the_provider(evidence: Evidence) -> Iterator[str]:
    """Once all is well again, nothing of a deleted grant works there any more."""
    deleted = evidence.deleted_at()
    for family in evidence.upstream.families.values():
        if family.user in deleted and not family.revoked:
            yield f"{family.user}: deleted, and alive at the provider"


def no_expired_token_is_answered(evidence: Evidence) -> Iterator[str]:
    """Neither one that was over when it was asked for, nor one that is said to last longer than it does."""
    for answer in _with_token(evidence):
        _, expires = evidence.upstream.access_tokens.get(answer.access_token or "", ("", float("inf")))
        if expires < answer.asked_at:
            yield f"{answer.user}: a token that had ended {answer.asked_at - expires:.1f} s before"
        elif answer.asked_at + (answer.expires_in or 0) > expires + CLOCK_SLACK:
            yield f"{answer.user}: said to last {answer.expires_in} s, ends in {expires - answer.asked_at:.1f}"


def no_foreign_token_is_answered(evidence: Evidence) -> Iterator[str]:
    """Each token was issued by the provider, and to the very user it was asked for."""
    for answer in _with_token(evidence):
        owner, _ = evidence.upstream.access_tokens.get(answer.access_token or "", (None, 0.0))
        if owner != answer.user:
            yield f"{answer.user}: was given a token of {owner or 'nobody'}"


def every_claim_resolves(evidence: Evidence) -> Iterator[str]:
    """No claim outlasts its takeover, and each grant comes to a final answer once all is well again."""
    for row in evidence.grants:
        if row.attempt_id is not None and (row.takeover_in is None or row.takeover_in < -TAKEOVER_SLACK):
            yield f"{row.user}: held by {row.owner}, takeover was due {-(row.takeover_in or 0):.1f} s ago"
    for user in sorted(evidence.unsettled):
        yield f"{user}: no final answer"


def failures_can_be_tried_again(evidence: Evidence) -> Iterator[str]:
    """While things are broken callers are told to try again, and nothing else; a dead grant counts as lost instead."""
    gone = evidence.withdrawn | evidence.deleted_at().keys()
    for answer in evidence.answers:
        told = answer.status in (200, NO_ANSWER) or answer.user in gone
        if not told and answer.code not in PASSING | {"reconnect_required"}:
            yield f"{answer.user}: {answer.status} {answer.code} to {answer.kind}"


def a_redirect_is_not_followed(evidence: Evidence) -> Iterator[str]:
    """With a refresh token in its body, a request goes nowhere else."""
    if evidence.upstream.elsewhere:
        yield f"{evidence.upstream.elsewhere} requests followed a redirect"


def no_plaintext_is_written(evidence: Evidence) -> Iterator[str]:
    """No token, key or client secret in any file: logs, journals, PostgreSQL's own."""
    for name, content in evidence.written.items():
        if found := SECRETS.search(content):
            yield f"{name}: {found[0][:8].decode()}..."


INVARIANTS: tuple[Invariant, ...] = (
    no_grant_is_lost,
    one_refresh_in_flight_per_grant,
    generation_grows,
    an_answered_generation_is_durable,
    a_generation_has_one_token,
    a_replaced_token_is_forgotten,
    a_refused_token_is_not_answered_again,
    a_spent_refresh_token_is_sent_only_under_policy,
    revoked_never_comes_back,
    what_is_deleted_is_dead_at_the_provider,
    no_expired_token_is_answered,
    no_foreign_token_is_answered,
    every_claim_resolves,
    failures_can_be_tried_again,
    a_redirect_is_not_followed,
    no_plaintext_is_written,
)


def violations(evidence: Evidence) -> list[Violation]:
    """All of them, by the invariant's name."""
    return [Violation(each.__name__, detail) for each in INVARIANTS for detail in each(evidence)]


def _with_token(evidence: Evidence) -> Iterator[Answer]:
    return (answer for answer in evidence.answers if answer.has_token)
