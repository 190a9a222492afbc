"""Microsoft Graph's calendars: what is asked, and what the answers mean. Pure.

https://learn.microsoft.com/graph/delta-query-events; https://learn.microsoft.com/graph/api/event-delta

    /me/calendars                                  nextLink ... nextLink
    /me/calendars/{id}/calendarView/delta?window   nextLink ... deltaLink     a baseline, of a window
    deltaLink                                      nextLink ... deltaLink     what changed since

A window is part of the links that come of it; moving it takes a new baseline. Links are followed as they are, but nowhere else
than where the API is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from app.calendars.answers import fields_of, is_id, items_of, stamp, text_of
from app.calendars.event import Event
from app.calendars.graph_event import read_event
from app.calendars.trouble import ErrorType, SyncFailed, Trouble
from app.calendars.upstream import Calendars, Change, Page, Place, RemoteCalendar, Window, page_of
from app.oauth.wire import HttpAnswer, HttpRequest

TITLE = "Outlook Calendar"
_CALENDARS_A_PAGE = 100
_EVENTS_A_PAGE = 500
_RESETS = {"syncstatenotfound", "syncstateinvalid", "resyncrequired"}
_NO_MAILBOX = {"mailboxnotenabledforrestapi", "mailboxnotsupportedforrestapi", "errornonexistentmailbox"}
_BUSY = {429, 509}
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_UNNAMED = "(without an id)"
_DEEPEST = 4  # of errors within errors


class GraphCalendar:
    """Implements `Upstream`. Ids are immutable ones (an event keeps its own when it is moved), whose case matters."""

    title = TITLE
    windowed = True

    def __init__(self, base_url: str) -> None:
        """`base_url`: `https://graph.microsoft.com/v1.0`."""
        self._base_url = base_url.rstrip("/")

    def list_calendars(self, page: str | None) -> HttpRequest:
        url = page or f"{self._base_url}/me/calendars?$top={_CALENDARS_A_PAGE}"
        return self._get(url, _CALENDARS_A_PAGE)

    def read_calendars(self, answer: HttpAnswer) -> Calendars:
        fields = fields_of(answer, TITLE)
        items = tuple(_remote_calendar(each) for each in items_of(fields, "value", TITLE))
        return Calendars(items, self._link(fields, "@odata.nextLink"))

    def list_events(self, calendar_id: str, place: Place, window: Window | None) -> HttpRequest:
        url = place.page or place.cursor
        if url is None:
            assert window is not None
            span = {"startDateTime": stamp(window.since), "endDateTime": stamp(window.until)}
            calendar = f"{self._base_url}/me/calendars/{quote(calendar_id, safe='')}"
            url = f"{calendar}/calendarView/delta?{urlencode(span)}"
        return self._get(url, _EVENTS_A_PAGE)

    def read_events(self, answer: HttpAnswer) -> Page:
        fields = fields_of(answer, TITLE)
        changes: list[Change] = []
        unreadable: dict[str, None] = {}
        for each in _items(fields):
            external_id = text_of(each, "id") or _UNNAMED
            try:
                changes.append((external_id, _read(each)))
            except ValueError:
                unreadable[external_id] = None
        next_page, cursor = self._link(fields, "@odata.nextLink"), self._link(fields, "@odata.deltaLink")
        if next_page is None and cursor is None:
            raise _unusable("no_link")
        cursor = cursor if next_page is None else None
        return page_of(changes, next_page=next_page, cursor=cursor, unreadable=unreadable)

    def params_hash(self) -> bytes:
        return hashlib.sha256(f"calendarView/delta ImmutableId UTC {self._base_url}".encode()).digest()

    def trouble_in(self, answer: HttpAnswer) -> Trouble:
        codes = list(_codes(answer))
        retry_after = answer.retry_after()
        kind = _error_type(
            answer.status, {code.lower() for code in codes}, is_told_when=retry_after is not None
        )
        code = next(filter(_CODE.fullmatch, codes), f"http_{answer.status}")
        return Trouble(kind, TITLE, retry_after, code)

    def wants_baseline(self, answer: HttpAnswer) -> bool:
        """Their case differs from one document to the next."""
        if not 400 <= answer.status < 500:
            return False
        return answer.status == 410 or any(code.lower() in _RESETS for code in _codes(answer))

    def _get(self, url: str, page_size: int) -> HttpRequest:
        self._require_here(url)
        preferences = f'odata.maxpagesize={page_size}, outlook.timezone="UTC", IdType="ImmutableId"'
        return HttpRequest(url, {"Accept": "application/json", "Prefer": preferences}, b"", "GET")

    def _link(self, fields: Mapping[str, Any], name: str) -> str | None:
        link = text_of(fields, name)
        if link is not None:
            self._require_here(link)
        return link

    def _require_here(self, url: str) -> None:
        """A link that leads elsewhere would take the access token there."""
        if not is_below(url, self._base_url):
            raise _unusable("foreign_link")


def is_below(url: str, base_url: str) -> bool:
    """Whether it is of the same origin, and its path one of those that begin with the other's, whoever reads it."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url or "#" in url:
        return False
    try:
        here, there = urlsplit(base_url), urlsplit(url)
    except ValueError:
        return False
    segments = unquote(there.path).replace("\\", "/").split("/")
    same_origin = (there.scheme, there.netloc.lower()) == (here.scheme, here.netloc.lower())
    return same_origin and there.path.startswith(f"{here.path}/") and not {".", ".."} & set(segments)


def _items(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    items = fields.get("value")
    if not isinstance(items, list):
        raise _unusable("no_value")
    return [each if isinstance(each, dict) else {} for each in items]


def _read(fields: Mapping[str, Any]) -> Event | None:
    """None for one that is gone. Raises ValueError where nothing can be made of it."""
    external_id = text_of(fields, "id")
    if external_id is not None and not is_id(external_id):
        raise ValueError("its id is too long to be one")
    if "@removed" in fields and external_id is not None:
        return None
    return read_event(fields)


def _remote_calendar(fields: Mapping[str, Any]) -> RemoteCalendar:
    external_id = fields["id"]
    role = (
        "owner" if fields.get("canShare") is True else "writer" if fields.get("canEdit") is True else "reader"
    )
    return RemoteCalendar(
        external_id=external_id,
        name=text_of(fields, "name") or external_id,
        zone=None,
        access_role=role,
        is_primary=fields.get("isDefaultCalendar") is True,
        etag=text_of(fields, "changeKey"),
    )


def _unusable(code: str) -> SyncFailed:
    return SyncFailed(Trouble(ErrorType.PROVIDER_UNAVAILABLE, TITLE, provider_code=code))


def _codes(answer: HttpAnswer) -> Iterator[str]:
    """The error's own code, then those within (https://learn.microsoft.com/graph/errors)."""
    error: Any = answer.json_object().get("error")
    for _ in range(_DEEPEST):
        if not isinstance(error, dict):
            return
        if isinstance(code := error.get("code"), str):
            yield code
        error = error.get("innerError") or error.get("innererror")


def _error_type(status: int, codes: set[str], *, is_told_when: bool) -> ErrorType:
    if status in _BUSY or (status == 503 and is_told_when):  # both are how Graph throttles
        return ErrorType.RATE_LIMITED
    if status >= 500 or status in (408, 410):  # 410: what comes next is a baseline, and may do
        return ErrorType.PROVIDER_UNAVAILABLE
    if status == 401:
        return ErrorType.AUTHENTICATION_EXPIRED
    if status == 404 or codes & _NO_MAILBOX:
        return ErrorType.CALENDAR_NOT_FOUND
    return ErrorType.PERMISSION_MISSING if status == 403 else ErrorType.INTERNAL
