"""Microsoft Graph's calendars, as far as a mirror and a writer of events use them: state and answers without any IO.

    fake = GraphCalendars()
    fake.add_calendar("AAMkcalendar=")
    status, headers, body = fake.answer("GET", "/v1.0/me/calendars", {}, {"authorization": "Bearer good"}, b"")

Others change calendars by `add`, `change`, `cancel`, `add_series`, `move_occurrence`, `cancel_occurrence`, `add_calendar`
and `remove_calendar`; `rows(start, end)` is what a mirror of that window must hold then. What `delta` does to its readers
is set there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from tests.calendars import graph_errors
from tests.calendars.answers import Answer, Faults, Headers, Query, Refused, Unanswered, answered, content_of
from tests.calendars.graph_delta import Delta
from tests.calendars.graph_errors import FAULTY, RESETS, GraphFault
from tests.calendars.graph_events import GraphCalendarsState, GraphEvent, moment_of, updated_at
from tests.calendars.graph_subscriptions import Subscriptions, Validate

BASE = "/v1.0/"
_PAGE_SIZE = re.compile(r"odata\.maxpagesize=(\d+)")
_ZONE = re.compile(r'outlook\.timezone="([^"]*)"')


class GraphCalendars(GraphCalendarsState):
    """`tokens` are the good ones. `requests` counts by kind: `calendars`, `delta`, `delta page`, `delta incremental`,
    `create`, `get`, `patch`, `delete`, `subscribe`, `renew`, `unsubscribe`, before anything is checked."""

    def __init__(
        self, *, base_url: str = "https://graph.microsoft.com/v1.0", validate: Validate | None = None
    ) -> None:
        super().__init__()
        self.base_url = base_url
        self.validate = validate
        self.tokens: Container[str] = {"good"}
        self.retry_after = 7  # seconds, with a 429 or a 503
        self.page_size = 10  # where nobody says how many
        self.requests: Counter[str] = Counter()
        self.delta = Delta(self)
        self.subscriptions = Subscriptions()
        self._faults: Faults[GraphFault] = Faults()
        self._transactions: dict[str, str] = {}

    def fail_next(self, times: int, fault: GraphFault, *, calendar: str | None = None) -> None:
        """So many requests, of those for one calendar or of all."""
        self._faults.add(times, fault, calendar)

    def recover(self) -> None:
        self._faults.clear()

    def notify(self, event: GraphEvent, change_type: str) -> None:
        calendar = self.calendars.get(event.calendar)
        if calendar is not None:
            is_default = calendar["isDefaultCalendar"]
            self.subscriptions.notify(event.calendar, is_default, event.event_id, event.etag, change_type)

    def answer(self, method: str, url_path: str, query: Query, headers: Headers, body: bytes) -> Answer:
        """`url_path` is the request line's: still encoded. Raises Unanswered."""
        parts = self._resolved([unquote(part) for part in url_path.removeprefix(BASE).split("/")])
        kind = _kind(method, parts, query)
        self.requests[kind] += 1
        has_cursor = kind in ("delta page", "delta incremental")
        fault = self._faults.next_for(self._calendar_of(parts), unfit=frozenset() if has_cursor else RESETS)
        if fault in (GraphFault.DROPPED, GraphFault.SILENT):
            raise Unanswered(hangs=fault is GraphFault.SILENT)
        failed = (
            None if fault is None else graph_errors.throttled(fault, self.retry_after) or FAULTY.get(fault)
        )
        if failed is not None:
            return failed
        try:
            done = self._done(kind, parts, query, headers, body)
        except Refused as refused:
            done = refused.answer
        if fault is GraphFault.ANSWER_LOST:
            raise Unanswered(hangs=False)
        status, fields, written = done
        return (status, fields, written[: len(written) // 2]) if fault is GraphFault.TRUNCATED else done

    def _done(self, kind: str, parts: list[str], query: Query, headers: Headers, body: bytes) -> Answer:
        if headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            raise Refused(graph_errors.UNAUTHENTICATED)
        preference = headers.get("prefer", "")
        if _ZONE.search(preference) and _ZONE.findall(preference) != ["UTC"]:
            raise Refused(graph_errors.invalid("The fake knows no time zone but UTC."))
        if kind == "calendars":
            return self._calendar_list(query, preference)
        content = _content(body)
        if parts[0] == "subscriptions":
            return self._of_subscriptions(kind, parts, content)
        if kind == "unknown" or (parts[1] == "calendars" and parts[2] not in self.calendars):
            raise Refused(graph_errors.NOT_FOUND)
        if kind.startswith("delta"):
            return self._delta(parts[2], query, preference)
        if kind == "create":
            return self._create(parts[2], preference, content)
        return self._of_an_event(kind, parts[-1], headers, content)

    def _of_subscriptions(self, kind: str, parts: list[str], wish: dict[str, Any]) -> Answer:
        if kind == "subscribe":
            return self.subscriptions.subscribe(wish, self.validate)
        if kind == "renew":
            return self.subscriptions.renew(parts[1], wish)
        return self.subscriptions.end(parts[1])

    def _resolved(self, parts: list[str]) -> list[str]:
        """`/me/calendar` is the default one of `/me/calendars`."""
        default = next((name for name, each in self.calendars.items() if each["isDefaultCalendar"]), None)
        if parts[:2] != ["me", "calendar"] or default is None:
            return parts
        return ["me", "calendars", default, *parts[2:]]

    def _calendar_of(self, parts: list[str]) -> str | None:
        if parts[:2] == ["me", "calendars"] and len(parts) > 2:
            return parts[2]
        event = self._found(parts[-1])
        return None if event is None else event.calendar

    def _calendar_list(self, query: Query, preference: str) -> Answer:
        size = int(query.get("$top", 0)) or self._size(preference)
        begin = int(query.get("$skip", 0))
        content: dict[str, Any] = {
            "@odata.context": f"{self.base_url}/$metadata#users('alice')/calendars",
            "value": list(self.calendars.values())[begin : begin + size],
        }
        if begin + size < len(self.calendars):
            content["@odata.nextLink"] = f"{self.base_url}/me/calendars?$top={size}&$skip={begin + size}"
        return answered(200, content)

    def _delta(self, calendar_id: str, query: Query, preference: str) -> Answer:
        immutable = _is_immutable(preference)
        return self.delta.answer(
            calendar_id,
            query,
            base_url=self.base_url,
            page_size=self._size(preference),
            show=lambda event: self._shown(event, immutable),
            identify=lambda event: event.identity(immutable),
        )

    def _create(self, calendar_id: str, preference: str, fields: dict[str, Any]) -> Answer:
        transaction = fields.get("transactionId")
        event_id = self._transactions.get(transaction or "")
        if event_id is None:
            given = _fields(fields)
            event_id = (
                self._create_series(calendar_id, given)
                if given.get("recurrence")
                else self.add(calendar_id, **given)
            )
            if transaction:
                self._transactions[transaction] = event_id
        event = self.events[event_id]
        return answered(201, self._shown(event, _is_immutable(preference)), ETag=event.etag)

    def _create_series(self, calendar_id: str, given: dict[str, Any]) -> str:
        pattern, span = given["recurrence"]["pattern"], given["recurrence"]["range"]
        if pattern["type"] not in ("daily", "weekly") or span["type"] != "numbered":
            raise Refused(graph_errors.invalid("The fake knows daily and weekly series with a count."))
        days = pattern["interval"] * (7 if pattern["type"] == "weekly" else 1)
        given.pop("end")
        return self.add_series(calendar_id, every_days=days, count=span["numberOfOccurrences"], **given)

    def _of_an_event(self, kind: str, event_id: str, headers: Headers, fields: dict[str, Any]) -> Answer:
        event = self._found(event_id)
        if event is None or event.is_deleted:
            raise Refused(graph_errors.NOT_FOUND)
        if kind != "get" and headers.get("if-match", "*") not in ("*", event.etag):
            raise Refused(graph_errors.CHANGED)
        if kind == "delete":
            self.cancel(event.event_id)
            return answered(204)
        if kind == "patch":
            self.change(event.event_id, **_fields(fields))
        shown = self._shown(event, _is_immutable(headers.get("prefer", "")), is_full=True)
        return answered(200, shown, ETag=event.etag)

    def _found(self, event_id: str) -> GraphEvent | None:
        """By either of its ids."""
        if event_id in self.events or not event_id.startswith("moves="):
            return self.events.get(event_id)
        return self.events.get(event_id.removeprefix("moves=").swapcase())

    def _size(self, preference: str) -> int:
        asked = _PAGE_SIZE.search(preference)
        return int(asked[1]) if asked else self.page_size

    def _shown(self, event: GraphEvent, immutable: bool, *, is_full: bool = False) -> dict[str, Any]:
        master = None if event.master is None else self.events[event.master]
        shown = {
            "id": event.identity(immutable),
            "type": event.kind,
            "seriesMasterId": None if master is None else master.identity(immutable),
            "start": _written(event.start),
            "end": _written(event.end),
        }
        if event.kind == "occurrence" and not is_full:
            return {"@odata.type": "#microsoft.graph.event", **shown}
        return {
            "@odata.etag": event.etag,
            "changeKey": event.change_key,
            "createdDateTime": "2026-11-01T00:00:00.0000000Z",
            "lastModifiedDateTime": updated_at(event),
            "iCalUId": f"040000008200E00074C5B7101A82E008{(event.master or event.event_id)[36:68].upper()}",
            "isCancelled": False,
            "isAllDay": False,
            "originalStartTimeZone": "Pacific Standard Time",
            "originalEndTimeZone": "tzone://Microsoft/Custom",
            "recurrence": None,
            "organizer": {"emailAddress": {"name": "Alice A", "address": "alice@example.com"}},
            "webLink": f"https://outlook.office365.com/owa/?itemid={event.event_id}",
            **({} if event.original is None else {"originalStart": f"{event.original:%Y-%m-%dT%H:%M:%SZ}"}),
            **event.fields,
            **shown,
        }


def _kind(method: str, parts: list[str], query: Query) -> str:
    match method, parts:
        case "GET", ["me", "calendars"]:
            return "calendars"
        case "GET", ["me", "calendars", _, "calendarView", "delta"]:
            if "$skiptoken" in query:
                return "delta page"
            return "delta incremental" if "$deltatoken" in query else "delta"
        case "POST", ["me", "calendars", _, "events"]:
            return "create"
        case _, ["me", "calendars", _, "events", _] | ["me", "events", _]:
            return {"GET": "get", "PATCH": "patch", "DELETE": "delete"}.get(method, "unknown")
        case "POST", ["subscriptions"]:
            return "subscribe"
        case _, ["subscriptions", _]:
            return {"PATCH": "renew", "DELETE": "unsubscribe"}.get(method, "unknown")
    return "unknown"


def _is_immutable(preference: str) -> bool:
    return 'idtype="immutableid"' in preference.lower()


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """An event as it is sent, with its times as moments."""
    try:
        return {
            name: moment_of(value) if name in ("start", "end") else value for name, value in given.items()
        }
    except (KeyError, ValueError):
        raise Refused(graph_errors.invalid("A time is not valid.")) from None


def _content(body: bytes) -> dict[str, Any]:
    try:
        return content_of(body)
    except ValueError:
        raise Refused(graph_errors.error(400, "BadRequest", "Unable to read JSON request payload.")) from None


def _written(moment: datetime) -> dict[str, str]:
    return {"dateTime": f"{moment:%Y-%m-%dT%H:%M:%S}.0000000", "timeZone": "UTC"}
