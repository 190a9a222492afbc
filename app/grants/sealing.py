"""A grant's secrets in and out of the vault: each is bound to its row, its field and its generation."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from app.errors import BrokerError
from app.grants.grant import Grant, LeanGrant, fingerprint
from app.telemetry import logger
from app.vault.seal import CannotOpen, Place
from app.vault.vault import Vault

log = logger(__name__)


def _place(grant_id: UUID, field: str, generation: int) -> Place:
    return Place("grants", grant_id, field, generation)


def seal_tokens(
    vault: Vault, grant_id: UUID, generation: int, *, access_token: str | None, refresh_token: str | None
) -> dict[str, Any]:
    """The columns that hold this token set as that generation."""
    access_place = _place(grant_id, "access_token", generation)
    refresh_place = _place(grant_id, "refresh_token", generation)
    return {
        "sealed_access_token": None if access_token is None else vault.seal(access_token, access_place),
        "sealed_refresh_token": None if refresh_token is None else vault.seal(refresh_token, refresh_place),
        "refresh_fingerprint": None if refresh_token is None else fingerprint(refresh_token),
    }


def place_of_candidate(attempt_id: UUID) -> Place:
    """Where the answer of that attempt is sealed to, as JSON."""
    return Place("grant_candidates", attempt_id, "tokens", 0)


def open_access_token(vault: Vault, grant: LeanGrant) -> str | None:
    """Raises CannotOpen where the row was tampered with."""
    if grant.sealed_access_token is None:
        return None
    return vault.open(grant.sealed_access_token, _place(grant.id, "access_token", grant.generation))


def open_refresh_token(vault: Vault, grant: Grant) -> str | None:
    """Raises CannotOpen where the row was tampered with."""
    if grant.sealed_refresh_token is None:
        return None
    return vault.open(grant.sealed_refresh_token, _place(grant.id, "refresh_token", grant.generation))


def unreadable(grant: LeanGrant, error: CannotOpen) -> BrokerError:
    """What a caller is told of a row that was tampered with, or damaged: it is that grant's trouble, and nobody else's."""
    log.error("grant.unreadable", grant_id=str(grant.id), detail=str(error))
    return BrokerError(
        "The stored connection cannot be read. This service's operators have to look into it.",
        provider=grant.key.provider,
        user_id=grant.key.user_id,
        grant_id=grant.id,
    )
