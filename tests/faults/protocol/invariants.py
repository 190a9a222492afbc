"""What must hold of the protocol beside what `tests.faults.invariants` says of grants and answers: each invariant is a
function from `History` to its violations, in sentences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from tests.faults.invariants import Violation
from tests.faults.protocol.history import Attempt, History, Sending, State

_SLACK_SECONDS = 0.5

Invariant = Callable[[History], Iterator[str]]


def what_was_journaled_is_where_it_belongs(history: History) -> Iterator[str]:
    """Stored, or kept as a candidate, at some time; dropped only for a newer lineage, or with its grant."""
    last = {change.grant_id: change for change in history.changes}
    stored = history.fingerprints()
    for kept in history.journaled:
        entry, grant = kept.entry, last[kept.entry.grant_id]
        if grant.after.status == "revoked" or grant.after.lineage_id != entry.lineage_id:
            continue
        if kept.issued not in stored[entry.grant_id] and entry.attempt_id not in history.candidates:
            yield f"{grant.user}: what attempt {entry.attempt_id} brought was journaled, and is nowhere"


def a_failure_ends_its_own_claim_only(history: History) -> Iterator[str]:
    """Once a claim is somebody else's, or the generation has passed, its failure tells nothing of the grant."""
    for user, before, _, attempt in _recorded(history):
        if not attempt.has_tokens and (before.attempt_id, before.generation) != (
            attempt.id,
            attempt.generation,
        ):
            yield (
                f"{user}: a failure at generation {attempt.generation} changed generation {before.generation}, "
                + ("which was not its own")
            )


def an_answer_replaces_only_what_was_sent_for_it(history: History) -> Iterator[str]:
    """Not what another refresh, or a new connection, stored meanwhile: that may be the only live one."""
    sent = {sending.attempt_id: sending.spends for sending in history.sendings}
    for user, before, after, attempt in _recorded(history):
        if attempt.has_tokens and not attempt.is_adoption and sent.get(attempt.id) != before.fingerprint:
            yield f"{user}: generation {after.generation} replaces a refresh token that it was not given for"


def what_may_be_spent_is_left_alone(history: History) -> Iterator[str]:
    """Where reuse revokes the family, a refresh token whose outcome is unknown is not sent again before the takeover."""
    by_token: dict[bytes, list[Sending]] = defaultdict(list)
    for sending in history.sendings if history.is_strict else ():
        for earlier in by_token[sending.spends]:
            too_soon = earlier.alone_until - sending.at
            if too_soon > _SLACK_SECONDS and earlier.may_have_spent(sending.at) and not earlier.is_half:
                yield f"{sending.user}: a token that may be spent was sent again {too_soon:.0f} s before its takeover"
        by_token[sending.spends].append(sending)


def nothing_goes_back(history: History) -> Iterator[str]:
    """Generations and epochs grow, new tokens are a new generation, and what is revoked stays so."""
    for change in history.changes:
        before, after, user = change.before, change.after, change.user
        if before is None:
            continue
        if after.generation < before.generation or after.epoch < before.epoch:
            yield f"{user}: {before.generation} and epoch {before.epoch} became {after.generation} and {after.epoch}"
        is_other = (after.lineage_id, after.fingerprint) != (before.lineage_id, before.fingerprint)
        if is_other and after.generation == before.generation and after.status != "revoked":
            yield f"{user}: other tokens, and generation {after.generation} still"
        if before.status == "revoked" != after.status:
            yield f"{user}: revoked, and then {after.status}"


def _recorded(history: History) -> Iterator[tuple[str, State, State, Attempt]]:
    """Changes that a refresh made, by user."""
    for change in history.changes:
        if change.before is not None and change.attempt is not None:
            yield change.user, change.before, change.after, change.attempt


INVARIANTS: tuple[Invariant, ...] = (
    what_was_journaled_is_where_it_belongs,
    a_failure_ends_its_own_claim_only,
    an_answer_replaces_only_what_was_sent_for_it,
    what_may_be_spent_is_left_alone,
    nothing_goes_back,
)
_AT_ANY_TIME = INVARIANTS[1:]


def violations(history: History) -> list[Violation]:
    """All of them, by the invariant's name."""
    return [Violation(each.__name__, detail) for each in INVARIANTS for detail in each(history)]


def violations_so_far(history: History) -> list[Violation]:
    """Those that can be told while refreshes are still under way."""
    return [Violation(each.__name__, detail) for each in _AT_ANY_TIME for detail in each(history)]
