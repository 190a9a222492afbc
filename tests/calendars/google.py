"""Google's Calendar API v3, as far as a mirror and a writer of events use it: state and answers without any IO.

Written against the discovery document `calendar:v3` and https://developers.google.com/workspace/calendar/api/guides/sync.

    fake = GoogleCalendars()
    fake.add_calendar("alice@example.com")
    status, headers, body = fake.answer("GET", "/calendar/v3/users/me/calendarList", {}, {"authorization": "Bearer good"}, b"")

Others change calendars by `add`, `change`, `cancel`, `add_series`, `move_instance`, `cancel_instance`, `delete_series`,
`add_calendar` and `remove_calendar`; `rows()` is what a mirror must hold then.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Container
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

from tests.calendars import google_errors
from tests.calendars.answers import Answer, Faults, Headers, Query, Refused, Unanswered, answered, content_of
from tests.calendars.google_channels import Channels
from tests.calendars.google_errors import FAULTY, GoogleFault
from tests.calendars.google_events import GoogleCalendar, GoogleCalendarsState, original_of, patched
from tests.calendars.google_lists import Lists

BASE = "/calendar/v3/"
_ID = re.compile("[0-9a-v]{5,1024}")


class GoogleCalendars(GoogleCalendarsState):
    """`tokens` are the good ones. `requests` counts by kind: `calendarList`, `list`, `list incremental`, `insert`, `get`,
    `patch`, `update`, `delete`, `watch`, `stop`, before anything is checked; each page is a request."""

    def __init__(self, *, zone: str = "America/Los_Angeles", shuffled: random.Random | None = None) -> None:
        super().__init__(zone)
        self.tokens: Container[str] = {"good"}
        self.retry_after = 7  # seconds, with a 429
        self.requests: Counter[str] = Counter()
        self.channels = Channels()
        self.lists = Lists(shuffled)
        self._faults: Faults[GoogleFault] = Faults()

    def fail_next(self, times: int, fault: GoogleFault, *, calendar: str | None = None) -> None:
        """So many requests, of those for one calendar or of all."""
        self._faults.add(times, fault, calendar)

    def recover(self) -> None:
        self._faults.clear()

    def notify(self, calendar_id: str) -> None:
        self.channels.notify(calendar_id)

    def answer(self, method: str, url_path: str, query: Query, headers: Headers, body: bytes) -> Answer:
        """`url_path` is the request line's: still encoded. Raises Unanswered."""
        parts = [unquote(part) for part in url_path.removeprefix(BASE).split("/")]
        calendar = self._resolved(parts[1]) if parts[0] == "calendars" and len(parts) > 1 else None
        kind = _kind(method, parts, query)
        self.requests[kind] += 1
        fault = self._faults.next_for(
            calendar,
            unfit=frozenset() if kind == "list incremental" else frozenset({GoogleFault.FULL_SYNC_REQUIRED}),
        )
        if fault in (GoogleFault.DROPPED, GoogleFault.SILENT):
            raise Unanswered(hangs=fault is GoogleFault.SILENT)
        if fault is GoogleFault.TOO_MANY_REQUESTS:
            return google_errors.too_many_requests(self.retry_after)
        if fault in FAULTY:
            return FAULTY[fault]
        try:
            done = self._done(kind, calendar, parts, query, headers, body)
        except Refused as refused:
            done = refused.answer
        if fault is GoogleFault.ANSWER_LOST:
            raise Unanswered(hangs=False)
        status, fields, written = done
        return (status, fields, written[: len(written) // 2]) if fault is GoogleFault.TRUNCATED else done

    def _done(
        self,
        kind: str,
        calendar_id: str | None,
        parts: list[str],
        query: Query,
        headers: Headers,
        body: bytes,
    ) -> Answer:
        if headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            raise Refused(google_errors.UNAUTHENTICATED)
        if kind == "calendarList":
            return self._calendar_list(query)
        content = _content(body)
        if kind == "stop":
            return self.channels.stop(content)
        calendar = self.calendars.get(calendar_id or "")
        if calendar_id is None or calendar is None or kind == "unknown":
            raise Refused(google_errors.NOT_FOUND)
        if len(parts) == 3 and kind != "insert":
            return self._events(calendar_id, calendar, query)
        if kind == "insert":
            return self._insert(calendar_id, content)
        return self._below(kind, calendar_id, parts[3], headers, content)

    def _below(
        self, kind: str, calendar_id: str, event_id: str, headers: Headers, content: dict[str, Any]
    ) -> Answer:
        calendar = self.calendars[calendar_id]
        if kind == "watch":
            return self._watch(calendar_id, calendar, content)
        if event_id not in calendar.events:
            return self._of_an_instance(kind, calendar_id, event_id, content)
        return self._of_an_event(kind, calendar_id, event_id, headers, content)

    def _resolved(self, calendar_id: str) -> str:
        if calendar_id != "primary":
            return calendar_id
        return next((name for name, each in self.calendars.items() if each.entry.get("primary")), calendar_id)

    def _calendar_list(self, query: Query) -> Answer:
        if "syncToken" in query:
            raise Refused(google_errors.invalid("The fake lists calendars in full only.", "syncToken"))
        self.lists.since("calendarList", query)
        return self.lists.page(
            "calendarList",
            query,
            begin=lambda: list(self.calendars),
            show=lambda name: self.calendars[name].entry if name in self.calendars else None,
            change_number=self.change_number,
            most=250,
            head={"kind": "calendar#calendarList", "etag": f'"{self.change_number:016}"'},
        )

    def _events(self, calendar_id: str, calendar: GoogleCalendar, query: Query) -> Answer:
        since = self.lists.since(calendar_id, query)
        with_deleted = since is not None or query.get("showDeleted") == "true"

        def begin() -> list[str]:
            by_change = sorted(calendar.changed.items(), key=lambda each: each[1])
            return [name for name, number in by_change if number > (since or 0) and is_shown(name)]

        def is_shown(event_id: str) -> bool:
            return with_deleted or calendar.is_mirrored(event_id)

        entry = calendar.entry
        return self.lists.page(
            calendar_id,
            query,
            begin=begin,
            show=lambda event_id: calendar.rendered(event_id) if is_shown(event_id) else None,
            change_number=self.change_number,
            most=2500,
            head={
                "kind": "calendar#events",
                "etag": f'"{self.change_number:016}"',
                "summary": entry["summary"],
                "timeZone": entry["timeZone"],
                "accessRole": entry["accessRole"],
                "defaultReminders": [],
            },
        )

    def _watch(self, calendar_id: str, calendar: GoogleCalendar, wish: dict[str, Any]) -> Answer:
        if not calendar.watchable:
            raise Refused(google_errors.PUSH_NOT_SUPPORTED)
        uri = f"https://www.googleapis.com/calendar/v3/calendars/{calendar_id}/events?alt=json"
        return self.channels.watch(calendar_id, uri, wish)

    def _insert(self, calendar_id: str, fields: dict[str, Any]) -> Answer:
        event_id = fields.get("id") or uuid4().hex
        if not _ID.fullmatch(event_id):
            raise Refused(google_errors.invalid("Invalid resource id value."))
        if event_id in self.calendars[calendar_id].events:
            raise Refused(google_errors.DUPLICATE)  # a deleted one too
        return self._stored(calendar_id, event_id, fields)

    def _of_an_event(
        self, kind: str, calendar_id: str, event_id: str, headers: Headers, fields: dict[str, Any]
    ) -> Answer:
        event = self.calendars[calendar_id].events[event_id]
        if kind == "get":
            return answered(200, event)
        if kind == "delete" and event["status"] == "cancelled":
            raise Refused(google_errors.DELETED)
        if headers.get("if-match", "*") not in ("*", event["etag"]):
            raise Refused(google_errors.CONDITION_NOT_MET)
        if kind == "delete":
            self.delete_series(calendar_id, event_id)
            return answered(204)
        kept = (
            event if kind == "patch" else {name: event[name] for name in ("iCalUID", "created", "sequence")}
        )
        merged = patched(kept, fields)
        return self._stored(calendar_id, event_id, {**merged, "sequence": event["sequence"] + 1})

    def _of_an_instance(self, kind: str, calendar_id: str, instance: str, fields: dict[str, Any]) -> Answer:
        """One that no exception is of yet. Whether the rule has it is not looked at."""
        calendar = self.calendars[calendar_id]
        master = instance.rpartition("_")[0]
        if kind == "get" or not calendar.is_living(master) or "recurrence" not in calendar.events[master]:
            raise Refused(google_errors.NOT_FOUND)
        try:
            original = original_of(instance)
        except ValueError:
            raise Refused(google_errors.NOT_FOUND) from None
        if kind == "delete":
            self.cancel_instance(calendar_id, master, original)
            return answered(204)
        self.move_instance(calendar_id, master, original, original, **fields)
        return answered(200, calendar.events[instance])

    def _stored(self, calendar_id: str, event_id: str, fields: dict[str, Any]) -> Answer:
        for name in ("start", "end"):
            if len(fields.get(name, {}).keys() & {"date", "dateTime"}) != 1:
                raise Refused(google_errors.error(400, "required", f"Missing {name} time."))
        if ("date" in fields["start"]) != ("date" in fields["end"]):
            raise Refused(
                google_errors.invalid("Start and end times must either both be date or both be dateTime.")
            )
        self.store(calendar_id, event_id, fields)
        return answered(200, self.calendars[calendar_id].events[event_id])


def _kind(method: str, parts: list[str], query: Query) -> str:
    match method, parts:
        case "GET", ["users", "me", "calendarList"]:
            return "calendarList"
        case "POST", ["channels", "stop"]:
            return "stop"
        case "GET", ["calendars", _, "events"]:
            return "list incremental" if "syncToken" in query else "list"
        case "POST", ["calendars", _, "events", "watch"]:
            return "watch"
        case "POST", ["calendars", _, "events"]:
            return "insert"
        case _, ["calendars", _, "events", _]:
            kinds = {"GET": "get", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}
            return kinds.get(method, "unknown")
    return "unknown"


def _content(body: bytes) -> dict[str, Any]:
    try:
        return content_of(body)
    except ValueError:
        raise Refused(google_errors.error(400, "parseError", "Parse Error")) from None
