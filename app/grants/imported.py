"""`Import`: tokens that come from outside a refresh. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from app.grants.grant import Grant, Status, fingerprint
from app.grants.schedule import refresh_margin
from app.ids import uuid7
from app.oauth.client import OAuthClient


class Keep:
    """The type of KEEP."""


KEEP: Final = Keep()
"""Stands for a refresh token that was left out of an import: the stored one stays. None removes it."""


@dataclass(frozen=True)
class Import:
    """Tokens that come from outside. `expires_at` None: the provider's usual lifetime from now; likewise for the
    refresh token, in seconds."""

    access_token: str | None = field(default=None, repr=False)
    refresh_token: str | Keep | None = field(default=KEEP, repr=False)
    expires_at: datetime | None = None
    refresh_expires_in: int | None = None
    scope: str | None = None
    metadata: Mapping[str, Any] | None = None


def lineage_columns(
    client: OAuthClient,
    tokens: Import,
    present: Grant | None,
    refresh_token: str | None,
    *,
    now: datetime,
    minimum_margin: timedelta,
) -> dict[str, Any]:
    """The columns with which a new lineage begins, secrets apart."""
    expires_at = tokens.expires_at
    if tokens.access_token is None:
        expires_at = now  # a refresh token alone: the access token is still to be fetched
    elif expires_at is None and client.provider.access_token.lifetime_seconds is not None:
        expires_at = now + timedelta(seconds=client.provider.access_token.lifetime_seconds)
    next_refresh_at = None
    if expires_at is not None and refresh_token is not None:
        next_refresh_at = expires_at - refresh_margin(
            max(expires_at - now, timedelta(0)), minimum=minimum_margin
        )
    return {
        "lineage_id": uuid7(now),
        "status": Status.ACTIVE,
        "reconnect_reason": None,
        "scope": tokens.scope,
        "expires_at": expires_at,
        "next_refresh_at": next_refresh_at,
        "issued_ttl_seconds": None,  # of refreshes only: a `min_ttl` beyond it is worth one refresh
        "refresh_expires_at": _refresh_expiry(client, tokens, present, refresh_token, now),
    }


def _refresh_expiry(
    client: OAuthClient, tokens: Import, present: Grant | None, refresh_token: str | None, now: datetime
) -> datetime | None:
    """When the refresh token ends: one that is kept does not begin anew."""
    if refresh_token is None:
        return None
    if present is not None and fingerprint(refresh_token) == present.refresh_fingerprint:
        return present.refresh_expires_at
    known = client.provider.refresh_token
    lifetime = tokens.refresh_expires_in or known.absolute_lifetime_seconds or known.idle_lifetime_seconds
    return None if lifetime is None else now + timedelta(seconds=lifetime)
