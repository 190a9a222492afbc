"""A call to a provider's API that a consumer has made for it, and what came of it. Pure."""

from __future__ import annotations

from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from uuid import UUID

from app.grants.grant import GrantKey

DEFAULT_WITHIN_SECONDS = 30.0
MAX_WITHIN_SECONDS = 120
MAX_ATTEMPTS = 5  # that a consumer may ask for


@dataclass(frozen=True)
class Call:
    """`target` is the path, with the query if there is one, below the API's base as it goes over the wire (RFC 3986
    section 3.3). `attempts` None: as many as the settings say. `within`: seconds until an answer begins. `grant_id`:
    the one grant of this key whose token may go with it; None for whichever there is.

    Neither its headers nor its body may be logged.
    """

    key: GrantKey
    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes | AsyncIterable[bytes] = field(default=b"", repr=False)
    attempts: int | None = None
    within: float = DEFAULT_WITHIN_SECONDS
    grant_id: UUID | None = None


@dataclass(frozen=True)
class Answer:
    """The provider's, whatever its status. `body` may be cut: `is_cut` then. `headers` have lower-case names; none of a
    connection's or a user's own (RFC 9110 section 7.6.1)."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)
    attempts: int
    is_cut: bool = False
