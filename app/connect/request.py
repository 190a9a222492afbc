"""`AuthorizationRequest`: one user on the way to a provider and back (RFC 6749 section 4.1). And the ticket, which is what
a browser is given to begin with."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID

from app.errors import InvalidRequest
from app.grants.grant import GrantKey

# RFC 6749 appendix A.5 and A.11, RFC 3986 section 2. An error may be anything: only known ones are told on.
_PARAMETERS = {
    "state": re.compile(r"[\x20-\x7e]*"),
    "code": re.compile(r"[\x20-\x7e]*"),
    "error": re.compile(r".*", re.DOTALL),
    "iss": re.compile(r"[\x21-\x7e]*"),
}
REQUEST_TTL = timedelta(minutes=10)
TICKET_TTL = timedelta(hours=24)


@dataclass(frozen=True)
class Wish:
    """Who is to be connected to what, and where the browser goes afterwards."""

    provider: str
    user_id: str
    account: str
    scopes: tuple[str, ...] = ()
    return_to: str | None = None
    login_hint: str | None = None

    @property
    def key(self) -> GrantKey:
        return GrantKey(self.provider, self.user_id, self.account)


@dataclass(frozen=True)
class AuthorizationRequest:
    """A stored request. Its state is known by its hash only, and works once."""

    id: UUID
    wish: Wish
    redirect_uri: str
    sealed_code_verifier: bytes = field(repr=False)
    browser_bound: bool
    browser_sha256: bytes | None = field(repr=False)
    expires_at: datetime
    used_at: datetime | None

    def may_be_opened_by(self, browser_sha256: bytes, now: datetime) -> bool:
        """Whether that browser may take it to the provider: nobody used it, nobody else opened it, in time."""
        others = self.browser_sha256 is not None and self.browser_sha256 != browser_sha256
        return self.used_at is None and now < self.expires_at and not others


@dataclass(frozen=True)
class Ticket:
    """What `/connect/{ticket}` carries, sealed. With a `state` it leads to that request, else to a new one."""

    wish: Wish
    expires_at: datetime
    state: str | None = field(default=None, repr=False)

    def to_json(self) -> str:
        return json.dumps(
            {
                "wish": asdict(self.wish),
                "expires_at": self.expires_at.isoformat(),
                "state": self.state,
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> Ticket:
        fields = json.loads(text)
        wish = fields["wish"] | {"scopes": tuple(fields["wish"]["scopes"])}
        return cls(Wish(**wish), datetime.fromisoformat(fields["expires_at"]), fields["state"])


@dataclass(frozen=True)
class Begun:
    """`authorization_url` is for the user's browser; `state` ends at `expires_at`."""

    authorization_url: str
    state: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True)
class Callback:
    """What the provider's redirect brought (RFC 6749 section 4.1.2), and the browser's cookie."""

    state: str | None = field(repr=False)
    code: str | None = field(repr=False)
    error: str | None
    issuer: str | None
    browser: str | None = field(repr=False)

    @classmethod
    def of(cls, parameters: Sequence[tuple[str, str]], *, browser: str | None) -> Callback:
        """Of the address that the browser came back with. Raises InvalidRequest, naming the parameter, for one that
        stands there twice (RFC 6749 section 3.1) or holds what it may not."""
        given: dict[str, str] = {}
        for name, value in parameters:
            if name not in _PARAMETERS:
                continue
            if name in given or not _PARAMETERS[name].fullmatch(value):
                raise InvalidRequest(
                    f"The address that you were sent back with is damaged ({name}). Please start again."
                )
            given[name] = value
        return cls(given.get("state"), given.get("code"), given.get("error"), given.get("iss"), browser)


@dataclass(frozen=True)
class Finished:
    """How it went: `error` is None for a connected account. `return_to` is where the browser goes, if anywhere."""

    wish: Wish
    error: str | None
    detail: str
    return_to: str | None


def new_state() -> str:
    """256 random bits: it cannot be guessed (RFC 6749 section 10.12)."""
    return secrets.token_urlsafe(32)


def sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def is_allowed_return(url: str, allowed: Sequence[str]) -> bool:
    """Whether `url` lies under one of the `allowed` URL prefixes.

    Scheme, host and port must be the same and the path must continue at a slash, so `https://app.example` allows
    neither `https://app.example.evil.test` nor `https://app.example@evil.test`.
    """
    target = _comparable(url)
    return target is not None and any(_is_under(target, _comparable(prefix)) for prefix in allowed)


def _comparable(url: str) -> tuple[str, str, str] | None:
    """Scheme, authority and path; None for what browsers and this parser may read differently."""
    if not url.isascii() or not url.isprintable() or "\\" in url or " " in url or "%2e" in url.lower():
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or "@" in parts.netloc
        or ".." in parts.path
    ):
        return None
    if port is None:
        port = 443 if parts.scheme == "https" else 80
    return parts.scheme, f"{parts.hostname}:{port}", parts.path or "/"


def _is_under(target: tuple[str, str, str], prefix: tuple[str, str, str] | None) -> bool:
    if prefix is None or target[:2] != prefix[:2]:
        return False
    folder = prefix[2].rstrip("/") + "/"
    return target[2] == prefix[2] or target[2].startswith(folder)
