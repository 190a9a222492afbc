"""What the authorization server remembers, value by value, and how it says no. Pure.

Times are seconds since the epoch, as in RFC 7662's `exp`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass


class Refused(Exception):
    """The request is refused with an error of RFC 6749 section 5.2 (or 4.1.2.1, or RFC 6750 section 3.1)."""

    def __init__(
        self, error: str, description: str, *, status: int = 400, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.status = status
        self.headers = headers or {}


@dataclass
class Code:
    """An authorization code; `family_id` is set once it was exchanged (RFC 6749 section 4.1.2: single use)."""

    client_id: str
    user: str
    scope: str
    redirect_uri: str
    code_challenge: str
    expires: float
    family_id: str | None = None


@dataclass
class Family:
    id: str
    client_id: str
    user: str
    scope: str
    revoked: bool = False


@dataclass
class RefreshToken:
    """Kept when spent or revoked too: otherwise its reuse could not be told from a token never issued."""

    family_id: str
    spent: float | None = None


@dataclass
class AccessToken:
    """`family_id` and `user` are None for a client acting for itself (RFC 6749 section 4.4)."""

    client_id: str
    scope: str
    expires: float
    user: str | None = None
    family_id: str | None = None


@dataclass(frozen=True)
class Issued:
    """One token answer; `ttl` in seconds."""

    access_token: str
    ttl: float
    scope: str
    refresh_token: str | None = None


def narrowed(asked: str | None, granted: str) -> str:
    """`asked` where it is within `granted`, `granted` where nothing was asked (RFC 6749 section 6)."""
    if asked is None:
        return granted
    if not set(asked.split()) <= set(granted.split()):
        raise Refused("invalid_scope", "a refresh may not ask for more than was granted")
    return asked


def s256(code_verifier: str) -> str:
    """RFC 7636 section 4.2."""
    digest = hashlib.sha256(code_verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
