"""Google Calendar: what its API (calendar v3) is asked, and what its answers mean. Pure.

A list is asked with the same parameters each time, since its sync token stands for them. Series are not expanded by Google: one
touched series of theirs comes as hundreds of instances else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import date
from typing import Any
from urllib.parse import quote, urlencode

from app.calendars.answers import code_of, fields_of, instant, items_of, text_of
from app.calendars.event import CANCELLED, Boundary, Event, Kind
from app.calendars.trouble import ErrorType, Trouble
from app.calendars.upstream import Calendars, Change, Page, Place, RemoteCalendar, Window, page_of
from app.oauth.wire import HttpAnswer, HttpRequest

TITLE = "Google Calendar"
PATH = "/calendar/v3"
_CALENDARS_PAGE = "250"
_EVENTS_PAGE = "500"  # of at most 2,500: half a megabyte or so
_EVENTS = {"maxResults": _EVENTS_PAGE, "singleEvents": "false"}
_BUSY = {"rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "calendarUsageLimitsExceeded"}
_UNPERMITTED = {"insufficientPermissions", "ACCESS_TOKEN_SCOPE_INSUFFICIENT"}
_MISCONFIGURED = {"accessNotConfigured", "SERVICE_DISABLED", "CONSUMER_INVALID"}
_OUT_OF_SIGHT = {
    "forbidden",
    "forbiddenForNonOrganizer",
    "notFound",
    "requiredAccessLevel",
}  # of one calendar that is shared with the user


class GoogleCalendar:
    """Implements `Upstream`."""

    title = TITLE
    windowed = False

    def __init__(self, base_url: str) -> None:
        """`base_url`: where the API's host begins, without its `/calendar/v3`."""
        self._base_url = base_url.rstrip("/").removesuffix(PATH) + PATH

    def list_calendars(self, page: str | None) -> HttpRequest:
        return self._get("/users/me/calendarList", {"maxResults": _CALENDARS_PAGE, "pageToken": page})

    def read_calendars(self, answer: HttpAnswer) -> Calendars:
        fields = fields_of(answer, self.title)
        found = tuple(
            RemoteCalendar(
                external_id=item["id"],
                name=text_of(item, "summaryOverride") or text_of(item, "summary") or item["id"],
                zone=text_of(item, "timeZone"),
                access_role=text_of(item, "accessRole") or "reader",
                is_primary=item.get("primary") is True,
                etag=text_of(item, "etag"),
            )
            for item in items_of(fields, "items", self.title)
            if item.get("deleted") is not True
        )
        return Calendars(found, text_of(fields, "nextPageToken"))

    def list_events(self, calendar_id: str, place: Place, window: Window | None) -> HttpRequest:
        query = {**_EVENTS, "syncToken": place.cursor, "pageToken": place.page}
        return self._get(events_path(calendar_id), query)

    def read_events(self, answer: HttpAnswer) -> Page:
        fields = fields_of(answer, self.title)
        zone = text_of(fields, "timeZone")
        changes: list[Change] = []
        unreadable = []
        for item in items_of(fields, "items", self.title):
            if item.get("status") == CANCELLED and "recurringEventId" not in item:
                changes.append((item["id"], None))
                continue
            try:
                changes.append((item["id"], event_of(item, zone)))
            except ValueError:
                unreadable.append(item["id"])
        next_page, cursor = text_of(fields, "nextPageToken"), text_of(fields, "nextSyncToken")
        return page_of(changes, next_page=next_page, cursor=cursor, unreadable=unreadable)

    def params_hash(self) -> bytes:
        return hashlib.sha256(repr(sorted(_EVENTS.items())).encode()).digest()

    def trouble_in(self, answer: HttpAnswer) -> Trouble:
        reasons = _reasons(answer)
        code = next(iter(reasons), None) or f"http_{answer.status}"
        return Trouble(_meaning(answer.status, set(reasons)), self.title, answer.retry_after(), code)

    def wants_baseline(self, answer: HttpAnswer) -> bool:
        return answer.status == 410 or (answer.status == 400 and "syncToken" in _locations(answer))

    def _get(self, path: str, query: Mapping[str, str | None]) -> HttpRequest:
        given = {name: value for name, value in query.items() if value is not None}
        return HttpRequest(f"{self._base_url}{path}?{urlencode(given)}", {}, b"", method="GET")


def events_path(calendar_id: str) -> str:
    """Below the API's base."""
    return f"/calendars/{quote(calendar_id, safe='')}/events"


def event_of(item: Mapping[str, Any], zone: str | None) -> Event:
    """An event as Google has it; `zone`: its calendar's. Raises ValueError for what is none."""
    try:
        return _event(item, zone)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError("it is no event") from error


def _event(item: Mapping[str, Any], zone: str | None) -> Event:
    recurrence = _lines(item.get("recurrence"))
    master_id = text_of(item, "recurringEventId")
    start, end = item.get("start"), item.get("end")
    status = text_of(item, "status") or "confirmed"
    alone = Kind.SERIES if recurrence else Kind.SINGLE
    if start is None and status != CANCELLED:
        raise KeyError("start")
    original = item.get("originalStartTime")
    begins = None if start is None else _boundary(start, zone)
    return Event(
        external_id=item["id"],
        kind=alone if master_id is None else Kind.EXCEPTION,
        status=status,
        start=begins,
        end=begins if end is None else _boundary(end, zone),
        ical_uid=text_of(item, "iCalUID"),
        master_id=master_id,
        original_start=None if original is None else _boundary(original, zone).key,
        recurrence=recurrence,
        etag=text_of(item, "etag"),
        updated_at=None if "updated" not in item else instant(item["updated"]),
        raw=item,
    )


def _boundary(fields: Mapping[str, Any], zone: str | None) -> Boundary:
    if (day := fields.get("date")) is not None:
        return Boundary(date=date.fromisoformat(day))
    return Boundary(at=instant(fields["dateTime"]), zone=text_of(fields, "timeZone") or zone)


def _lines(given: object) -> tuple[str, ...]:
    """Raises ValueError for what is no list of lines."""
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(line, str) for line in given):
        raise ValueError("its recurrence is no list of lines")
    return tuple(line for line in given if isinstance(line, str))


def _reasons(answer: HttpAnswer) -> list[str]:
    """The provider's words for it, the most telling first."""
    error = answer.json_object().get("error")
    if not isinstance(error, dict):
        return []
    found = [each.get("reason") for name in ("details", "errors") for each in _dicts(error.get(name))]
    return [code for each in (*found, error.get("status")) if (code := code_of(each)) is not None]


def _locations(answer: HttpAnswer) -> list[object]:
    """The parameters that it says are wrong."""
    error = answer.json_object().get("error")
    return [each.get("location") for each in _dicts(error.get("errors"))] if isinstance(error, dict) else []


def _dicts(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _meaning(status: int, reasons: set[str]) -> ErrorType:
    by_status = {
        401: ErrorType.AUTHENTICATION_EXPIRED,
        404: ErrorType.CALENDAR_NOT_FOUND,
        429: ErrorType.RATE_LIMITED,
    }
    if status in by_status:
        return by_status[status]
    if status >= 500:
        return ErrorType.PROVIDER_UNAVAILABLE
    if status != 403:
        return ErrorType.INTERNAL
    for known, meaning in (
        (_BUSY, ErrorType.RATE_LIMITED),
        (_MISCONFIGURED, ErrorType.MISCONFIGURED),
        (_UNPERMITTED, ErrorType.PERMISSION_MISSING),
        (_OUT_OF_SIGHT, ErrorType.CALENDAR_NOT_FOUND),
    ):
        if reasons & known:
            return meaning
    return ErrorType.PERMISSION_MISSING
