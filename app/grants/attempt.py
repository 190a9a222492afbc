"""`Run`: how far one refresh has got; and what its end means. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from app.errors import GrantRefused, ProviderError, Sent, UpstreamError
from app.grants.claim import Claim
from app.grants.grant import Grant, Outcome, Status, fingerprint
from app.oauth.answers import NO_ACCESS_TOKEN, TokenSet
from app.oauth.client import OAuthClient


@dataclass
class Run:
    """How far one refresh has got."""

    client: OAuthClient
    claim: Claim
    tries: int = 0
    is_probe: bool = False  # of a breaker that is half-open
    may_be_spent: bool = False  # a try's outcome is unknown
    is_open: bool = False  # the last try was sent, and what became of it is not known, or not stored, yet
    sent_at: float = 0.0  # monotonic seconds of the last try
    took: timedelta | None = None  # how long its answer took, where it is committed later than it came
    adopts: UUID | None = None  # the candidate whose tokens it commits, in place of an answer of its own
    flaw: Mapping[str, Any] | None = (
        None  # what was wrong with an answer of which only the refresh token is of use
    )


def outcome_of(error: UpstreamError) -> Outcome:
    """How an attempt ended that ended with `error`."""
    if isinstance(error, GrantRefused):
        return Outcome.DEAD
    return Outcome.UNKNOWN if error.sent is Sent.UNKNOWN else Outcome.FAILED


def outcome_of_answer(tokens: TokenSet) -> Outcome:
    return Outcome.FAILED if tokens.access_token is None else Outcome.REFRESHED


def told_of(run: Run) -> tuple[str | None, str | None]:
    """The category and code that the history adds where it was not simply a good answer to this request."""
    if run.adopts is not None:
        return None, "candidate_adopted"
    return (None, None) if run.flaw is None else (run.flaw["category"], run.flaw["provider_code"])


def is_ordinary(run: Run, tokens: TokenSet) -> bool:
    """Whether storing the answer is all that there is to do, if the grant is still what was sent."""
    sent = run.claim.grant
    return (
        tokens.access_token is not None
        and run.adopts is None
        and not run.claim.has_candidates
        and sent.status is Status.ACTIVE
        and sent.refused_at is None
    )


def reason_of_death(run: Run) -> str:
    """Why a refused grant is dead. Where an earlier try may have spent the refresh token, that is why."""
    lost = run.client.provider.rotates and (run.may_be_spent or run.claim.grant.may_be_spent)
    return "lost_rotation" if lost else "invalid_grant"


def as_recorded(error: UpstreamError, now: datetime) -> dict[str, Any]:
    """What a grant's `last_error` tells, and what those are told who waited for the attempt elsewhere."""
    return {
        "provider_code": error.provider_code,
        "retry_after": error.retry_after,
        "code": error.code,
        "category": error.category,
        "message": error.detail,
        "at": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }


def half_answered(title: str, now: datetime) -> dict[str, Any]:
    """What is recorded of half an answer that was stored later than it came."""
    return {
        "provider_code": NO_ACCESS_TOKEN,
        "retry_after": None,
        "code": ProviderError.code,
        "category": ProviderError.category,
        "message": f"{title} gave an answer that cannot be used. Your connection is kept; try again shortly.",
        "at": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }


def is_other(refresh_token: str | None, grant: Grant) -> bool:
    """Whether it is one, and another than the grant's."""
    return refresh_token is not None and fingerprint(refresh_token) != grant.refresh_fingerprint


def brings_more(tokens: TokenSet, present: Grant, *, expires_at: datetime | None) -> bool:
    """Whether an answer is worth having beside what another refresh with the same refresh token has stored since."""
    if is_other(tokens.refresh_token, present):
        return True
    if tokens.access_token is None or present.expires_at is None:
        return False
    return expires_at is None or expires_at > present.expires_at
