"""`Consumer`: a service that calls us, what its key looks like, and what it may do. Pure."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from app.errors import Forbidden
from app.resilience import Rate

_KEY = re.compile(r"brk_(?P<id>[0-9a-f]{16})_(?P<secret>[0-9a-f]{64})")


RESERVED_NAMES = frozenset(
    {"broker", "user", "command line"}
)  # who acts in the audit trail where no consumer does


class Scope(StrEnum):
    """What a key may be used for."""

    TOKENS_READ = "tokens:read"
    TOKENS_REFRESH = "tokens:refresh"
    GRANTS_READ = "grants:read"
    GRANTS_WRITE = "grants:write"
    PROXY = "proxy"
    CALENDAR = "calendar"
    DELIVERIES = "deliveries"
    ADMIN = "admin"  # includes all the others


@dataclass(frozen=True)
class Consumer:
    """`providers` and `users` None: all of them. A user is named exactly, or by `prefix*`. `rate` None: no limit. `key_id`:
    of the key that was shown, if it is a request's."""

    id: UUID
    name: str
    scopes: frozenset[str]
    providers: frozenset[str] | None = None
    users: tuple[str, ...] | None = None
    rate: Rate | None = None
    key_id: str | None = None

    def has(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def require(self, scope: Scope) -> None:
        """Raises Forbidden unless the key has the scope."""
        if not self.has(scope):
            raise Forbidden(f"This API key lacks the scope {scope}.")

    def may_see(self, provider: str, user_id: str) -> bool:
        """Whether grants of this user at this provider exist at all for the consumer."""
        return self.may_use(provider) and self._has_user(user_id)

    def require_access(self, provider: str, user_id: str) -> None:
        """Raises Forbidden where the consumer may not create anything for this user at this provider."""
        if not self.may_use(provider):
            raise Forbidden("This API key is not for that provider.", provider=provider)
        if not self._has_user(user_id):
            raise Forbidden("This API key is not for that user.", provider=provider)

    def may_use(self, provider: str) -> bool:
        """Whether the key is for that provider."""
        return self.providers is None or provider in self.providers

    def _has_user(self, user_id: str) -> bool:
        if self.users is None:
            return True
        return any(
            user_id.startswith(allowed[:-1]) if allowed.endswith("*") else user_id == allowed
            for allowed in self.users
        )


def rights_of(consumer: Consumer) -> dict[str, object]:
    """What it may do and how often, as the audit trail has it."""
    rate = consumer.rate
    return {
        "scopes": sorted(consumer.scopes),
        "providers": None if consumer.providers is None else sorted(consumer.providers),
        "users": None if consumer.users is None else list(consumer.users),
        "rate": None if rate is None else {"limit": rate.limit, "per_seconds": rate.per_seconds},
    }


@dataclass(frozen=True)
class ApiKey:
    """A stored key: its secret is known by its hash only."""

    id: str
    secret_sha256: bytes
    expires_at: datetime | None
    revoked_at: datetime | None

    def accepts(self, secret: str, now: datetime) -> bool:
        """Whether `secret` is this key's, and the key is in force. Takes the same time for any wrong secret."""
        matches = hmac.compare_digest(hash_secret(secret), self.secret_sha256)
        return matches and self.is_in_force(now)

    def is_in_force(self, now: datetime) -> bool:
        expired = self.expires_at is not None and self.expires_at <= now
        return not expired and self.revoked_at is None


def split_key(key: str) -> tuple[str, str] | None:
    """The id and the secret of `brk_<16 hex>_<64 hex>`; None for anything else."""
    match = _KEY.fullmatch(key)
    return None if match is None else (match["id"], match["secret"])


def digest_of(key: bytes) -> bytes:
    """What a whole key is found by, so that none is kept in the clear."""
    return hashlib.sha256(key).digest()


def hash_secret(secret: str) -> bytes:
    """A secret of 256 random bits needs no slow hash."""
    return hashlib.sha256(secret.encode()).digest()


def new_key() -> str:
    """A fresh key, shown once and never again."""
    return f"brk_{secrets.token_hex(8)}_{secrets.token_hex(32)}"
