"""What must hold whatever was broken: each invariant is a function from `Evidence` to its violations, in sentences.

`violations` runs them all. Nothing here knows how the evidence came about.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.faults import answered
from tests.faults.answered import CLOCK_SLACK, with_token
from tests.faults.evidence import AttemptRow, Evidence, GrantRow

REVOKED_WITHIN = 2.0
TAKEOVER_SLACK = 2.0
IDLE_SECONDS = 1.0  # in a transaction: far longer than the way from one statement to the next
REFUSED = {"invalid_grant", "lost_rotation"}  # why a provider's refusal kills
SECRETS = re.compile(rb"s[ar]t_[A-Za-z0-9_-]{32}|brk_[0-9a-f]{16}_[0-9a-f]{64}|sandbox-secret")


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
    """Each refresh that is written down has a generation of its own, higher than those before it, and than the first, which
    no refresh brought."""
    last: dict[tuple[str, str], int] = {}
    for attempt in evidence.attempts:
        key = (attempt.grant_id, attempt.lineage_id)
        if attempt.outcome == "refreshed":
            if attempt.generation <= last.get(key, 1):
                yield f"{attempt.grant_id}: generation {attempt.generation} after {last.get(key, 1)}"
            last[key] = attempt.generation


def every_journaled_set_ends_somewhere(evidence: Evidence) -> Iterator[str]:
    """Committed, a candidate, dropped for a newer lineage, or revoked; and once all is well again no journal holds any.

    A candidate ends when a later refresh proves that what is stored in its place is live.
    """
    for journal, count in evidence.outstanding.items():
        if count:
            yield f"{journal}: {count} answers are left in it"
    committed = {attempt.id: attempt.generation for attempt in evidence.attempts}
    adopted = {attempt.grant_id for attempt in evidence.attempts if attempt.code == "candidate_adopted"}
    proven: dict[str, int] = defaultdict(int)
    for attempt in evidence.attempts:
        if attempt.outcome == "refreshed":
            proven[attempt.grant_id] = max(proven[attempt.grant_id], attempt.generation)
    grants = {row.id: row for row in evidence.grants if row.status != "revoked"}
    for answer in evidence.journaled:
        grant = grants.get(answer.grant_id)
        if grant is None or grant.lineage_id != answer.lineage_id or answer.attempt_id in evidence.candidates:
            continue
        is_stored = committed.get(answer.attempt_id, 0) > answer.generation or answer.grant_id in adopted
        if not is_stored and proven[answer.grant_id] < answer.generation + 2:
            yield f"{grant.user}: what followed generation {answer.generation} was journaled, and is nowhere"


def a_stale_failure_changes_nothing(evidence: Evidence) -> Iterator[str]:
    """Failures tell of the generation that they were met with: none kills a later one, nor counts against it."""
    refreshed: dict[tuple[str, str], int] = defaultdict(int)
    failed: dict[tuple[str, str], list[AttemptRow]] = defaultdict(list)
    for attempt in evidence.attempts:
        lineage = (attempt.grant_id, attempt.lineage_id)
        if attempt.outcome == "refreshed":
            refreshed[lineage] = max(refreshed[lineage], attempt.generation)
        else:
            failed[lineage].append(attempt)
    for row in evidence.grants:
        lineage = (row.id, row.lineage_id)
        own = [attempt for attempt in failed[lineage] if attempt.generation >= refreshed[lineage]]
        deaths = [each for each in own if each.outcome == "dead" and each.generation == row.generation]
        if row.reconnect_reason in REFUSED and not deaths:
            yield f"{row.user}: called dead, and nobody refused its generation {row.generation}"
        if row.failures > len(own):
            yield f"{row.user}: {row.failures} failures are counted, its own are {len(own)}"


def a_spent_refresh_token_is_sent_only_under_policy(evidence: Evidence) -> Iterator[str]:
    """Reuse that the provider detected, beyond what the scenario makes unavoidable; and tokens never issued."""
    if evidence.upstream.reuse_detected > evidence.allowed.reuse:
        yield f"{evidence.upstream.reuse_detected} spent tokens sent, {evidence.allowed.reuse} allowed"
    if evidence.upstream.unknown_refresh_tokens:
        yield f"{evidence.upstream.unknown_refresh_tokens} refresh tokens sent that were never issued"


def revoked_never_comes_back(evidence: Evidence) -> Iterator[str]:
    """Two seconds after a deletion was answered nobody is given a token of that grant, and its row stays a tombstone."""
    deleted = evidence.deleted_at()
    for answer in with_token(evidence):
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


def every_claim_resolves(evidence: Evidence) -> Iterator[str]:
    """No claim outlasts its takeover, and each grant comes to a final answer once all is well again."""
    for row in evidence.grants:
        if row.attempt_id is not None and (row.takeover_in is None or row.takeover_in < -TAKEOVER_SLACK):
            yield f"{row.user}: held by {row.owner}, takeover was due {-(row.takeover_in or 0):.1f} s ago"
    for user in sorted(evidence.unsettled):
        yield f"{user}: no final answer"


def sigterm_loses_nothing(evidence: Evidence) -> Iterator[str]:
    """A replica that is told to end does so by itself, with 0, and finishes what it has begun."""
    for departure in evidence.departures:
        if departure.code:
            yield f"replica {departure.replica} ended with {departure.code}"
        if departure.left:
            yield f"replica {departure.replica} left {departure.left} refreshes without an end"


def no_connection_is_held_upstream(evidence: Evidence) -> Iterator[str]:
    """No transaction stays open while something else is waited for, such as a provider's answer."""
    if evidence.idle_in_transaction_seconds > IDLE_SECONDS:
        yield f"a connection was idle in its transaction for {evidence.idle_in_transaction_seconds:.1f} s"


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
    every_journaled_set_ends_somewhere,
    a_stale_failure_changes_nothing,
    answered.an_answered_generation_is_durable,
    answered.a_generation_has_one_token,
    answered.a_replaced_token_is_forgotten,
    answered.a_refused_token_is_not_answered_again,
    a_spent_refresh_token_is_sent_only_under_policy,
    revoked_never_comes_back,
    what_is_deleted_is_dead_at_the_provider,
    answered.no_expired_token_is_answered,
    answered.no_foreign_token_is_answered,
    every_claim_resolves,
    answered.failures_can_be_tried_again,
    answered.a_failure_says_when_to_come_back,
    answered.a_running_replica_answers,
    sigterm_loses_nothing,
    no_connection_is_held_upstream,
    a_redirect_is_not_followed,
    no_plaintext_is_written,
)


def violations(evidence: Evidence) -> list[Violation]:
    """All of them, by the invariant's name."""
    return [Violation(each.__name__, detail) for each in INVARIANTS for detail in each(evidence)]
