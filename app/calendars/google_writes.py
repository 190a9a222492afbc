"""Events as Google Calendar is asked to keep them. Pure.

https://developers.google.com/workspace/calendar/api/v3/reference/events
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import quote

from app.calendars.answers import fields_of
from app.calendars.draft import Draft
from app.calendars.event import CANCELLED, Boundary, Event, Kind
from app.calendars.google import PATH, TITLE, event_of, events_path
from app.calendars.trouble import ErrorType, SyncFailed, Trouble
from app.calendars.writes import body_of, headers_of
from app.oauth.wire import HttpAnswer, HttpRequest

_JSON = {"Content-Type": "application/json"}
_NAMES = {"title": "summary", "description": "description", "location": "location", "status": "status"}
_INSTANCE = re.compile(r"(.+)_(\d{8}|\d{8}T\d{6}Z)")


class GoogleWrites:
    """Implements `Writes`. A new event's id is ours: a second insert of it is answered 409, whoever sent it."""

    identity_is_id = True

    def __init__(self, base_url: str) -> None:
        """`base_url`: where the API's host begins, without its `/calendar/v3`."""
        self._base_url = base_url.rstrip("/").removesuffix(PATH) + PATH

    def create(self, calendar_id: str, draft: Draft, identity: str) -> HttpRequest:
        fields = {name: value for name, value in _fields(draft).items() if value is not None}
        url = f"{self._base_url}{events_path(calendar_id)}"
        return HttpRequest(url, _JSON, body_of({**fields, "id": identity}))

    def read(self, calendar_id: str, event_id: str) -> HttpRequest:
        return HttpRequest(self._url(calendar_id, event_id), {}, b"", "GET")

    def change(self, calendar_id: str, event_id: str, draft: Draft, *, if_match: str | None) -> HttpRequest:
        fields = _fields(draft)
        for name in {
            "start",
            "end",
        } & fields.keys():  # a patch leaves what it does not name: also the other kind
            fields[name] = {"date": None, "dateTime": None, "timeZone": None, **fields[name]}
        headers = headers_of(if_match, _JSON)
        return HttpRequest(self._url(calendar_id, event_id), headers, body_of(fields), "PATCH")

    def delete(self, calendar_id: str, event_id: str, *, if_match: str | None) -> HttpRequest:
        return HttpRequest(self._url(calendar_id, event_id), headers_of(if_match, {}), b"", "DELETE")

    def event(self, answer: HttpAnswer, *, zone: str | None) -> Event:
        try:
            return event_of(fields_of(answer, TITLE), zone)
        except ValueError as error:
            trouble = Trouble(ErrorType.PROVIDER_UNAVAILABLE, TITLE, provider_code="unusable_answer")
            raise SyncFailed(trouble) from error

    def removed(self, event_id: str) -> Event | None:
        """Ids of instances are their master's with the original start."""
        instance = _INSTANCE.fullmatch(event_id)
        if instance is None:
            return None
        try:
            original = _original(instance[2])
        except ValueError:
            return None
        return Event(
            external_id=event_id,
            kind=Kind.EXCEPTION,
            status=CANCELLED,
            start=None,
            end=None,
            master_id=instance[1],
            original_start=original.key,
        )

    def _url(self, calendar_id: str, event_id: str) -> str:
        return f"{self._base_url}{events_path(calendar_id)}/{quote(event_id, safe='')}"


def _fields(draft: Draft) -> dict[str, Any]:
    """What the draft names, in Google's words; None where it is to be taken away."""
    fields: dict[str, Any] = {
        theirs: getattr(draft, ours) for ours, theirs in _NAMES.items() if ours in draft.given
    }
    for name, boundary in (("start", draft.start), ("end", draft.end)):
        if boundary is not None:
            fields[name] = _time(boundary)
    if "recurrence" in draft.given:
        fields["recurrence"] = list(draft.recurrence) if draft.recurrence else None
    if "attendees" in draft.given:
        fields["attendees"] = [{"email": address} for address in draft.attendees or ()]
    return fields


def _time(boundary: Boundary) -> dict[str, str]:
    if boundary.at is None:
        return {"date": boundary.key}
    written = boundary.at.isoformat().replace("+00:00", "Z")
    return {"dateTime": written, **({} if boundary.zone is None else {"timeZone": boundary.zone})}


def _original(written: str) -> Boundary:
    """Raises ValueError."""
    if len(written) == 8:
        return Boundary(date=date.fromisoformat(written))
    return Boundary(at=datetime.strptime(written, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC))
