"""The authorization server's memory and its transitions: no IO, and `now` (seconds since the epoch) is an argument.

A family is everything that came from one authorization: one code, then a chain of refresh tokens and the access
tokens issued along it. It dies as a whole.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from app.sandbox.counters import Counters, Flights
from app.sandbox.settings import Settings
from app.sandbox.tokens import AccessToken, Code, Family, Issued, RefreshToken, Refused, narrowed, s256

CODE_TTL = 60.0
SWEEP_INTERVAL = 60.0


@dataclass
class State:
    """Everything the sandbox knows. `changes` grows whenever something changed that must survive a restart."""

    clients: dict[str, str]
    settings: Settings = field(default_factory=Settings)
    counters: Counters = field(default_factory=Counters)
    flights: Flights = field(default_factory=Flights)
    codes: dict[str, Code] = field(default_factory=dict)
    families: dict[str, Family] = field(default_factory=dict)
    refresh_tokens: dict[str, RefreshToken] = field(default_factory=dict)
    access_tokens: dict[str, AccessToken] = field(default_factory=dict)
    changes: int = 0
    swept: float = 0.0

    def authorize(
        self, *, client_id: str, user: str, scope: str, redirect_uri: str, code_challenge: str, now: float
    ) -> str:
        """A new authorization code, good for a minute and for these very values."""
        code = secrets.token_urlsafe(24)
        self.codes[code] = Code(client_id, user, scope, redirect_uri, code_challenge, now + CODE_TTL)
        return code

    def exchange(
        self, code: str, *, client_id: str, redirect_uri: str, code_verifier: str, now: float
    ) -> Issued:
        """Tokens for a code; its second use revokes what the first one brought (RFC 6749 section 4.1.2)."""
        record = self.codes.get(code)
        if record is None or record.client_id != client_id:
            raise Refused("invalid_grant", "the code is unknown")
        if record.family_id is not None:
            self._revoke_family(self.families[record.family_id])
            raise Refused("invalid_grant", "the code was used before")
        if now >= record.expires:
            raise Refused("invalid_grant", "the code has expired")
        if record.redirect_uri != redirect_uri:
            raise Refused("invalid_grant", "redirect_uri differs from the authorization request's")
        if s256(code_verifier) != record.code_challenge:  # RFC 7636 section 4.6
            raise Refused("invalid_grant", "code_verifier does not match")
        issued, record.family_id = self._new_family(record.client_id, record.user, record.scope, now)
        return issued

    def grant(self, *, client_id: str, user: str, scope: str, now: float) -> Issued:
        """Tokens as if the user had just authorized the client."""
        return self._new_family(client_id, user, scope, now)[0]

    def client_credentials(self, *, client_id: str, scope: str, now: float) -> Issued:
        """An access token for the client itself, and no refresh token (RFC 6749 section 4.4.3)."""
        return self._issue(AccessToken(client_id, scope, now + self.settings.access_ttl), now)

    def refresh(self, token: str, *, client_id: str, scope: str | None, now: float) -> Issued:
        """New tokens by the rotation policy in force; `scope` may narrow the access token's, never widen it.

        A refusal spends nothing. The family's own scope stays what it was (RFC 6749 section 6).
        """
        family = self._refreshable(token, client_id=client_id, now=now)
        granted = narrowed(scope, family.scope)
        self.counters.refreshed(family.user)
        access = AccessToken(client_id, granted, now + self.settings.access_ttl, family.user, family.id)
        if self.settings.rotation == "never":
            return self._issue(access, now)
        spent = self.refresh_tokens[token]
        spent.spent = now if spent.spent is None else spent.spent  # a grace period runs from the first use
        return self._issue(access, now, successor=RefreshToken(family.id))

    def revoke(self, token: str, *, client_id: str) -> None:
        """Kills the family of either token, or a client's own access token; an unknown one is no error (RFC 7009)."""
        family, access = self.family_of(token), self.access_tokens.get(token)
        owner = family or access
        if owner is not None and owner.client_id != client_id:
            raise Refused("invalid_grant", "the token was issued to another client")  # RFC 7009 section 2.1
        if family is not None:
            self._revoke_family(family)
        elif access is not None:
            del self.access_tokens[token]
            self.changes += 1

    def revoke_user(self, user: str) -> int:
        """Kills every family of the user, as the user could at the provider's own site; returns how many."""
        alive = [family for family in self.families.values() if family.user == user and not family.revoked]
        for family in alive:
            self._revoke_family(family)
        return len(alive)

    def live_access_token(self, token: str, now: float) -> AccessToken | None:
        access = self.access_tokens.get(token)
        if access is None or now >= access.expires:
            return None
        revoked = access.family_id is not None and self.families[access.family_id].revoked
        return None if revoked else access

    def live_refresh_token(self, token: str, now: float) -> Family | None:
        """The family a refresh token could still be used for."""
        record = self.refresh_tokens.get(token)
        if record is None or self._is_spent(record, now):
            return None
        family = self.families[record.family_id]
        return None if family.revoked else family

    def family_of(self, token: str) -> Family | None:
        """The family that a refresh or access token belongs to, dead or alive."""
        record = self.refresh_tokens.get(token) or self.access_tokens.get(token)
        return self.families[record.family_id] if record and record.family_id else None

    def dump(self) -> dict[str, Any]:
        """What must survive a restart, as JSON holds it. Codes live too briefly to be among it."""
        return {
            "families": [asdict(family) for family in self.families.values()],
            "refresh_tokens": {token: asdict(record) for token, record in self.refresh_tokens.items()},
            "access_tokens": {token: asdict(record) for token, record in self.access_tokens.items()},
        }

    def restore(self, dumped: Mapping[str, Any]) -> None:
        """Takes over what `dump` gave."""
        self.families = {family["id"]: Family(**family) for family in dumped["families"]}
        self.refresh_tokens = {key: RefreshToken(**value) for key, value in dumped["refresh_tokens"].items()}
        self.access_tokens = {key: AccessToken(**value) for key, value in dumped["access_tokens"].items()}

    def _refreshable(self, token: str, *, client_id: str, now: float) -> Family:
        record = self.refresh_tokens.get(token)
        if record is None:
            self.counters.unknown_refresh_tokens += 1
            raise Refused("invalid_grant", "the refresh token is unknown")
        family = self.families[record.family_id]
        if family.client_id != client_id:
            raise Refused("invalid_grant", "the refresh token was issued to another client")
        if self._is_spent(record, now):
            self.counters.reuse_detected += 1
            self._revoke_family(family)
            raise Refused("invalid_grant", "the refresh token was used before: its family is revoked")
        if family.revoked:
            raise Refused("invalid_grant", "the refresh token is revoked")
        return family

    def _is_spent(self, record: RefreshToken, now: float) -> bool:
        if record.spent is None:
            return False
        return self.settings.rotation != "graced" or now >= record.spent + self.settings.grace_seconds

    def _new_family(self, client_id: str, user: str, scope: str, now: float) -> tuple[Issued, str]:
        family = Family(secrets.token_urlsafe(12), client_id, user, scope)
        self.families[family.id] = family
        access = AccessToken(client_id, scope, now + self.settings.access_ttl, user, family.id)
        return self._issue(access, now, successor=RefreshToken(family.id)), family.id

    def _issue(self, access: AccessToken, now: float, *, successor: RefreshToken | None = None) -> Issued:
        self._sweep(now)
        access_token, refresh_token = f"sat_{secrets.token_urlsafe(24)}", None
        self.access_tokens[access_token] = access
        if successor is not None:
            refresh_token = f"srt_{secrets.token_urlsafe(24)}"
            self.refresh_tokens[refresh_token] = successor
        self.changes += 1
        return Issued(access_token, self.settings.access_ttl, access.scope, refresh_token)

    def _revoke_family(self, family: Family) -> None:
        family.revoked = True
        self.changes += 1

    def _sweep(self, now: float) -> None:
        if now < self.swept + SWEEP_INTERVAL:
            return
        self.swept = now
        self.access_tokens = {key: each for key, each in self.access_tokens.items() if each.expires > now}
