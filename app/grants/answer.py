"""What a caller gets of a grant: its access token, and how far that is less than what was asked for."""

from __future__ import annotations

from app.clock import Clock
from app.errors import (
    BrokerError,
    ProviderUnavailable,
    ReconnectRequired,
    RefreshTimeout,
    Sent,
    UpstreamError,
)
from app.grants.grant import LeanGrant, Status
from app.grants.sealing import open_access_token, unreadable
from app.grants.token import Degraded, Need, Token
from app.outages import DatabaseUnavailable
from app.vault.seal import CannotOpen
from app.vault.vault import Vault


class Answers:
    """Opens tokens for those who may have them."""

    def __init__(self, vault: Vault, clock: Clock) -> None:
        self._vault = vault
        self._clock = clock

    def token(
        self, grant: LeanGrant, need: Need, *, refreshed: bool = False, degraded: Degraded | None = None
    ) -> Token:
        """The grant's token. Raises ProviderError for one that has run out by now."""
        access_token, now = self._open(grant), self._clock.now()
        if access_token is None or not grant.is_valid(now):
            raise grant.run_out()
        if degraded is None and grant.status is not Status.ACTIVE:
            degraded = Degraded.REFRESH_FAILED  # it works for now, and cannot be renewed any more
        if degraded is None and not grant.lasts(now, need.min_ttl):
            degraded = Degraded.MIN_TTL_UNAVAILABLE
        return Token(grant, access_token, refreshed=refreshed, degraded=degraded)

    def _open(self, grant: LeanGrant) -> str | None:
        try:
            return open_access_token(self._vault, grant)
        except CannotOpen as error:
            raise unreadable(grant, error) from error

    def in_spite_of(self, error: BrokerError, grant: LeanGrant, need: Need) -> Token:
        """The token that is there, marked degraded, where it is still valid and will do; else raises `error`."""
        if not need.or_present or not grant.is_valid(self._clock.now()):
            raise error
        return self.token(grant, need, degraded=_degradation(error))


def _degradation(error: BrokerError) -> Degraded:
    if isinstance(error, RefreshTimeout):
        return Degraded.OUTCOME_UNKNOWN
    if isinstance(error, DatabaseUnavailable):
        return Degraded.DATABASE_UNAVAILABLE
    if isinstance(error, UpstreamError) and error.sent is Sent.UNKNOWN:
        return Degraded.OUTCOME_UNKNOWN
    if isinstance(error, ProviderUnavailable):
        return Degraded.PROVIDER_UNAVAILABLE
    if isinstance(error, ReconnectRequired) and error.reason == "no_refresh_token":
        return Degraded.MIN_TTL_UNAVAILABLE
    return Degraded.REFRESH_FAILED
