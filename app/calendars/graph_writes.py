"""Events as Microsoft Graph is asked to keep them. Pure.

https://learn.microsoft.com/graph/api/resources/event
"""

from __future__ import annotations

import hashlib
from datetime import UTC
from typing import Any
from urllib.parse import quote
from uuid import UUID
from zoneinfo import ZoneInfo

from tzlocal.windows_tz import tz_win

from app.calendars.answers import fields_of
from app.calendars.draft import Draft
from app.calendars.event import Boundary, Event
from app.calendars.graph import TITLE
from app.calendars.graph_event import read_event
from app.calendars.graph_recurrence import patterned
from app.calendars.trouble import ErrorType, SyncFailed, Trouble
from app.calendars.writes import PRIMARY, body_of, headers_of
from app.oauth.wire import HttpAnswer, HttpRequest

_HEADERS = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    "Prefer": 'outlook.timezone="UTC", IdType="ImmutableId"',  # as syncs read them
}


class GraphWrites:
    """Implements `Writes`. A new event has a transaction's id: a second POST of it is answered with the event that is there."""

    identity_is_id = False

    def __init__(self, base_url: str) -> None:
        """`base_url`: `https://graph.microsoft.com/v1.0`."""
        self._base_url = base_url.rstrip("/")

    def create(self, calendar_id: str, draft: Draft, identity: str) -> HttpRequest:
        fields = {**_fields(draft), "transactionId": _transaction(identity, calendar_id)}
        return HttpRequest(self._events(calendar_id), _HEADERS, body_of(fields))

    def read(self, calendar_id: str, event_id: str) -> HttpRequest:
        return HttpRequest(self._event(calendar_id, event_id), _HEADERS, b"", "GET")

    def change(self, calendar_id: str, event_id: str, draft: Draft, *, if_match: str | None) -> HttpRequest:
        headers, body = headers_of(if_match, _HEADERS), body_of(_fields(draft))
        return HttpRequest(self._event(calendar_id, event_id), headers, body, "PATCH")

    def delete(self, calendar_id: str, event_id: str, *, if_match: str | None) -> HttpRequest:
        headers = headers_of(if_match, _HEADERS)
        return HttpRequest(self._event(calendar_id, event_id), headers, b"", "DELETE")

    def event(self, answer: HttpAnswer, *, zone: str | None) -> Event:
        try:
            return read_event(fields_of(answer, TITLE))
        except ValueError as error:
            trouble = Trouble(ErrorType.PROVIDER_UNAVAILABLE, TITLE, provider_code="unusable_answer")
            raise SyncFailed(trouble) from error

    def removed(self, event_id: str) -> Event | None:
        """Their instances' ids tell nothing; deltas say that they are gone."""
        return None

    def _events(self, calendar_id: str) -> str:
        if calendar_id == PRIMARY:
            return f"{self._base_url}/me/calendar/events"
        return f"{self._base_url}/me/calendars/{quote(calendar_id, safe='')}/events"

    def _event(self, calendar_id: str, event_id: str) -> str:
        return f"{self._events(calendar_id)}/{quote(event_id, safe='')}"


def _transaction(identity: str, calendar_id: str) -> str:
    """Transactions are the mailbox's, and a name of the caller's may be used once in each calendar."""
    return str(UUID(bytes=hashlib.sha256(f"{identity}\n{calendar_id}".encode()).digest()[:16]))


def _fields(draft: Draft) -> dict[str, Any]:
    """What the draft names, in Graph's words, which has something empty for nothing."""
    texts: dict[str, Any] = {
        "title": {"subject": draft.title or ""},
        "description": {"body": {"contentType": "text", "content": draft.description or ""}},
        "location": {"location": {"displayName": draft.location or ""}},
        "attendees": {"attendees": [_attendee(address) for address in draft.attendees or ()]},
        "status": {"showAs": "tentative" if draft.status == "tentative" else "busy"},
    }
    fields: dict[str, Any] = {}
    for name in sorted(texts.keys() & draft.given):
        fields |= texts[name]
    for name, boundary in (("start", draft.start), ("end", draft.end)):
        if boundary is not None:
            fields |= {name: _time(boundary), "isAllDay": boundary.date is not None}
    if "recurrence" in draft.given:
        fields["recurrence"] = patterned(draft.recurrence, draft.start) if draft.recurrence else None
    return fields


def _attendee(address: str) -> dict[str, Any]:
    return {"emailAddress": {"address": address}, "type": "required"}


def _time(boundary: Boundary) -> dict[str, str]:
    """The time on the wall there, and the zone as Windows calls it: Graph knows few of the IANA's names."""
    if boundary.at is None:
        return {"dateTime": f"{boundary.key}T00:00:00", "timeZone": "UTC"}
    name = tz_win.get(boundary.zone or "UTC")
    zone = ZoneInfo(boundary.zone) if name is not None and boundary.zone is not None else UTC
    wall = boundary.at.astimezone(zone).replace(tzinfo=None)
    return {"dateTime": wall.isoformat(), "timeZone": "UTC" if name is None or zone is UTC else name}
