"""`Need` and `Token`: what a caller asks of a grant's access token, and what the caller is answered. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from app.grants.grant import LeanGrant, Status

DEFAULT_MIN_TTL = timedelta(seconds=60)


class Degraded(StrEnum):
    """Why an answer is less than what was asked for."""

    REFRESH_FAILED = "refresh_failed"
    OUTCOME_UNKNOWN = "refresh_outcome_unknown"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    DATABASE_UNAVAILABLE = "database_unavailable"
    MIN_TTL_UNAVAILABLE = "min_ttl_unavailable"


@dataclass(frozen=True)
class Need:
    """What a caller wants of a token.

    `min_ttl`: good for at least that long. `newer_than`: of a later generation than this one (a resource server
    refused that one's token, or it is due). `or_present`: if a refresh fails, a token that is still valid will do.
    """

    min_ttl: timedelta = DEFAULT_MIN_TTL
    newer_than: int | None = None
    or_present: bool = True

    def is_met_by(self, grant: LeanGrant, now: datetime) -> bool:
        """Whether the grant's present token will do without a refresh.

        A `min_ttl` beyond what the provider last issued counts as half of that, so that short-lived tokens do not cause
        a refresh at every fetch.
        """
        if self.newer_than is not None:
            return grant.generation > self.newer_than and grant.is_valid(now)
        min_ttl = self.min_ttl
        if grant.issued_ttl is not None and min_ttl > grant.issued_ttl:
            min_ttl = grant.issued_ttl / 2
        return grant.lasts(now, min_ttl)


def at_hand(grant: LeanGrant, need: Need, now: datetime) -> bool:
    """Whether the present token is the answer, and nothing has to be done behind it or said of it besides."""
    return (
        grant.status is Status.ACTIVE
        and need.is_met_by(grant, now)
        and grant.lasts(now, need.min_ttl)
        and not grant.is_held(now)
        and not grant.is_due(now)
    )


def at_hand_until(grant: LeanGrant, need: Need) -> datetime | None:
    """Of a token that is `at_hand`: when that has to be looked at again; None where time changes nothing."""
    ends = (
        None if grant.expires_at is None else grant.expires_at - need.min_ttl,
        grant.next_refresh_at if grant.refreshable else None,
        grant.lease_until,  # whose outcome may be unknown then
    )
    return min((end for end in ends if end is not None), default=None)


@dataclass(frozen=True)
class Token:
    """What a fetch is answered with."""

    grant: LeanGrant
    access_token: str = field(repr=False)
    refreshed: bool
    degraded: Degraded | None
