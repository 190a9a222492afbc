"""`Need` and `Token`: what a caller asks of a grant's access token, and what the caller is answered. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from app.grants.grant import Grant

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

    def is_met_by(self, grant: Grant, now: datetime) -> bool:
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


@dataclass(frozen=True)
class Token:
    """What a fetch is answered with."""

    grant: Grant
    access_token: str = field(repr=False)
    refreshed: bool
    degraded: Degraded | None
