"""`Grant`: what one user gave one OAuth client at one provider, and the rules that need nothing but the value. `LeanGrant`:
as much of it as a fetch needs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from app.errors import (
    Category,
    GrantNotFound,
    InsufficientScope,
    ProviderError,
    ProviderRejectedClient,
    ProviderUnavailable,
    ReconnectRequired,
    Sent,
    UpstreamError,
)

DEFAULT_ACCOUNT = "default"
_NOBODYS_ACCOUNT = "."  # no name that callers may give
INCIDENT = "provider_incident"  # the code of an error that stands for a refusal which was not believed
HALF_ANSWERS = {"no_usable_access_token", "unknown_token_type"}
EXPIRING_WITHIN = timedelta(minutes=5)  # for what nobody will renew

_RECONNECT_SENTENCES = {
    "no_refresh_token": "The access to {provider} has ended and cannot be renewed by itself.",
    "lost_rotation": "The connection to {provider} was interrupted while it was being renewed.",
}
_UPSTREAM_ERRORS: dict[str, type[UpstreamError]] = {
    kind.code: kind for kind in (ProviderError, ProviderRejectedClient, ProviderUnavailable)
}


class Status(StrEnum):
    ACTIVE = "active"
    RECONNECT_REQUIRED = "reconnect_required"
    REVOKED = "revoked"


class Health(StrEnum):
    HEALTHY = "healthy"
    EXPIRING_SOON = "expiring_soon"
    EXPIRED = "expired"
    FAILING = "failing"
    DEAD = "dead"


class Trigger(StrEnum):
    """Who asked for a refresh."""

    REQUEST = "request"
    AHEAD = "ahead"  # behind an answer that was still good
    SCHEDULER = "scheduler"
    FORCED = "forced"
    PROBE = "probe"  # nobody: a dead grant's one later look


class Outcome(StrEnum):
    """How a refresh attempt ended."""

    REFRESHED = "refreshed"
    FAILED = "failed"  # known not to have changed anything at the provider
    UNKNOWN = "unknown"  # the refresh token may be spent
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class GrantKey:
    """What callers name a grant by."""

    provider: str
    user_id: str
    account: str = DEFAULT_ACCOUNT


@dataclass(frozen=True, slots=True)
class LeanGrant:
    """What decides on a fetch, and on whether to refresh: half of a row, since many of these are remembered. The access
    token is in it sealed only."""

    id: UUID
    key: GrantKey
    status: Status
    reconnect_reason: str | None
    lineage_id: UUID
    generation: int
    sealed_access_token: bytes | None = field(repr=False)
    has_refresh_token: bool
    token_type: str
    scope: str | None
    expires_at: datetime | None
    issued_ttl: timedelta | None
    next_refresh_at: datetime | None
    attempt_id: UUID | None
    lease_until: datetime | None
    takeover_at: datetime | None
    failures: int
    last_error: Mapping[str, Any] | None
    last_error_at: datetime | None

    @property
    def refreshable(self) -> bool:
        return self.status is Status.ACTIVE and self.has_refresh_token and self.expires_at is not None

    def remaining(self, now: datetime) -> timedelta | None:
        """How long the access token is still good; None for one that does not expire."""
        return None if self.expires_at is None else self.expires_at - now

    def is_valid(self, now: datetime) -> bool:
        """Whether there is an access token that has not expired."""
        remaining = self.remaining(now)
        return self.sealed_access_token is not None and (remaining is None or remaining > timedelta(0))

    def lasts(self, now: datetime, min_ttl: timedelta) -> bool:
        """Whether the access token is good for `min_ttl`, taken literally."""
        remaining = self.remaining(now)
        return self.is_valid(now) and (remaining is None or remaining >= min_ttl)

    def is_due(self, now: datetime) -> bool:
        """Whether the token is inside the refresh margin, and neither a back-off nor a hold keeps it there."""
        due = self.next_refresh_at is not None and self.next_refresh_at <= now
        return due and self.refreshable and not self.is_held(now)

    def is_refreshing(self, now: datetime) -> bool:
        """Whether somebody holds a live lease on it."""
        return self.attempt_id is not None and self.lease_until is not None and self.lease_until > now

    def is_held(self, now: datetime) -> bool:
        """Whether the outcome of a refresh is unknown, and nobody may send the refresh token again yet."""
        return (
            self.attempt_id is not None
            and self.takeover_at is not None
            and self.takeover_at > now
            and not self.is_refreshing(now)
        )

    def is_doubted(self, now: datetime) -> bool:
        """Whether the provider called it dead, was not believed, and is not to be asked again yet."""
        return self.status is Status.ACTIVE and (until := self._doubted_until) is not None and until > now

    @property
    def _doubted_until(self) -> datetime | None:
        error = self.last_error or {}
        if self.last_error_at is None or error.get("provider_code") != INCIDENT:
            return None
        return self.last_error_at + timedelta(seconds=error.get("retry_after") or 0)

    @property
    def is_half_answered(self) -> bool:
        """Whether the last answer had a refresh token only, so that this generation has the access token of the one
        before."""
        return bool(self.failures) and (self.last_error or {}).get("provider_code") in HALF_ANSWERS

    def health(self, now: datetime) -> Health:
        if self.status is not Status.ACTIVE:
            return Health.DEAD
        if not self.is_valid(now):
            return Health.FAILING if self.failures else Health.EXPIRED
        if self.failures:
            return Health.FAILING
        return Health.EXPIRING_SOON if self._is_expiring(now) else Health.HEALTHY

    def _is_expiring(self, now: datetime) -> bool:
        """Nobody will renew it before it ends, or it is about to be renewed."""
        remaining = self.remaining(now)
        if remaining is None:
            return False
        return self.is_due(now) or (not self.refreshable and remaining < EXPIRING_WITHIN)

    def require_refreshable(self) -> None:
        """Raises ReconnectRequired for a dead grant, and for one that has no refresh token."""
        if self.status is not Status.ACTIVE:
            raise self.dead(self.reconnect_reason or "invalid_grant")
        if not self.has_refresh_token:
            raise self.dead("no_refresh_token")

    def require_scope(self, wanted: str) -> None:
        """Raises InsufficientScope naming those of the space-separated `wanted` that were not granted."""
        missing = sorted(set(wanted.split()) - set((self.scope or "").split()))
        if missing:
            raise InsufficientScope(
                f"The connection to {self.key.provider} does not include: {', '.join(missing)}. "
                "Connect the account again and allow it.",
                provider=self.key.provider,
                user_id=self.key.user_id,
                grant_id=self.id,
            )

    def last_failure(self) -> UpstreamError:
        """The error that the last attempt ended with, for those who waited for it elsewhere."""
        error = self.last_error or {}
        kind = _UPSTREAM_ERRORS.get(str(error.get("code")), ProviderUnavailable)
        return kind(
            str(error.get("message", "The connection could not be renewed; try again shortly.")),
            provider=self.key.provider,
            sent=Sent.ANSWERED,
            category=Category(error.get("category", Category.UNKNOWN)),
            provider_code=error.get("provider_code"),
            retry_after=error.get("retry_after"),
        )

    def doubted(self, now: datetime) -> UpstreamError:
        """The error for one that `is_doubted`: what the last attempt ended with, until it is tried again."""
        error = self.last_failure()
        if self._doubted_until is not None:
            error.retry_after = max(1, math.ceil((self._doubted_until - now).total_seconds()))
        return error

    def failed_since(self, earlier: LeanGrant) -> bool:
        """Whether an attempt on the same generation has failed after `earlier` was read."""
        return self.generation == earlier.generation and self.last_error_at != earlier.last_error_at

    def run_out(self) -> ProviderError:
        """The error for a token that was over before it could be answered."""
        return ProviderError(
            f"{self.key.provider} issued an access token that has already run out. Your connection is kept.",
            provider=self.key.provider,
            sent=Sent.ANSWERED,
            provider_code="token_already_expired",
        )

    def held_back(self, now: datetime) -> ProviderUnavailable:
        """The error for a token that may not be refreshed before the takeover."""
        seconds = (self.takeover_at - now).total_seconds() if self.takeover_at else 0
        return ProviderUnavailable(
            f"Renewing the access to {self.key.provider} was interrupted, and is tried again shortly.",
            provider=self.key.provider,
            sent=Sent.UNKNOWN,
            provider_code="refresh_outcome_unknown",
            retry_after=max(1, math.ceil(seconds)),
        )

    def dead(self, reason: str) -> ReconnectRequired:
        """The error that says so to the user."""
        sentence = _RECONNECT_SENTENCES.get(reason, "The access to {provider} was withdrawn or has ended.")
        return ReconnectRequired(
            sentence.format(provider=self.key.provider) + " Please connect your account again.",
            reason=reason,
            provider=self.key.provider,
            user_id=self.key.user_id,
            account=self.key.account,
            grant_id=self.id,
        )


@dataclass(frozen=True, slots=True)
class Grant(LeanGrant):
    """One row of `grants`. Secrets are in it sealed only."""

    has_refresh_token: bool = field(init=False)
    sealed_refresh_token: bytes | None = field(repr=False)
    refresh_fingerprint: bytes | None = field(repr=False)
    refresh_expires_at: datetime | None
    may_be_spent: bool
    refused_at: datetime | None
    probe_at: datetime | None
    refresh_count: int
    last_refreshed_at: datetime | None
    last_used_at: datetime | None
    last_validated_at: datetime | None
    metadata: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "has_refresh_token", self.sealed_refresh_token is not None)


def not_found(key: GrantKey) -> GrantNotFound:
    """The one error for a grant that is absent, and for one that the consumer may not see."""
    return GrantNotFound(
        f"There is no connection of this user to {key.provider}. Connect the account first.",
        provider=key.provider,
        user_id=key.user_id,
    )


def absent_twin(key: GrantKey) -> GrantKey:
    """A key of the same user at the same provider under which there never is a grant: no account is called so."""
    return replace(key, account=_NOBODYS_ACCOUNT)


def fingerprint(refresh_token: str) -> bytes:
    """Tells one refresh token from another without opening either."""
    return hashlib.sha256(refresh_token.encode()).digest()
