"""`Writes`: how a provider's calendar API is asked to write an event, and what it says to that. Two implementations, both pure.

A new event brings along who it is, so that asking twice makes one of it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from app.calendars.draft import Draft
from app.calendars.event import Event
from app.oauth.wire import HttpAnswer, HttpRequest

PRIMARY = "primary"


class Verdict(StrEnum):
    """What became of a write, where it is no trouble."""

    DONE = "done"
    DUPLICATE = "duplicate"  # such an event is there, or was
    STALE = "stale"  # it is another by now than `If-Match` says
    ABSENT = "absent"
    REFUSED = "refused"  # the provider does not take the fields as they are


# What the provider's statuses mean to whoever writes; any other from 400 on is trouble.
VERDICTS: Mapping[int, Verdict] = {
    400: Verdict.REFUSED,
    404: Verdict.ABSENT,
    409: Verdict.DUPLICATE,
    410: Verdict.ABSENT,
    412: Verdict.STALE,
}


def verdict_of(answer: HttpAnswer) -> Verdict:
    return VERDICTS.get(answer.status, Verdict.DONE)


class Writes(Protocol):
    """One provider's. Requests come without the access token. `calendar_id` may be `primary`."""

    identity_is_id: bool
    """Whether a new event is called at the provider what it brings along, so that it can be read by that."""

    def create(self, calendar_id: str, draft: Draft, identity: str) -> HttpRequest:
        """Raises ValidationFailed for what the provider cannot have."""
        ...

    def read(self, calendar_id: str, event_id: str) -> HttpRequest: ...

    def change(self, calendar_id: str, event_id: str, draft: Draft, *, if_match: str | None) -> HttpRequest:
        """Raises ValidationFailed for what the provider cannot have."""
        ...

    def delete(self, calendar_id: str, event_id: str, *, if_match: str | None) -> HttpRequest: ...

    def event(self, answer: HttpAnswer, *, zone: str | None) -> Event:
        """The event that was answered; `zone`: its calendar's. Raises SyncFailed for an answer that is none."""
        ...

    def removed(self, event_id: str) -> Event | None:
        """What is left of an instance of a series that was deleted, where the id tells which one it is."""
        ...


def identity_of(grant_id: UUID, name: str) -> str:
    """Tells an event from all others of a grant by what its maker calls it: 52 characters of base32hex (RFC 4648 section 7)
    in small letters, which is what Google takes for an id."""
    digest = hashlib.sha256(f"{grant_id}\n{name}".encode()).digest()
    return base64.b32hexencode(digest).decode().rstrip("=").lower()


def body_of(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields).encode()


def headers_of(if_match: str | None, headers: Mapping[str, str]) -> dict[str, str]:
    return {**headers, **({} if if_match is None else {"If-Match": if_match})}
