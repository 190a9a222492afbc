"""The calendars behind the fake of Microsoft Graph: what is in them, and every change as others make it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal
from uuid import uuid4
from zoneinfo import ZoneInfo

Kind = Literal["singleInstance", "seriesMaster", "occurrence", "exception"]

_BEGINNING = datetime(2026, 11, 1, tzinfo=UTC)
WINDOWS_ZONES = {
    "UTC": "UTC",
    "Pacific Standard Time": "America/Los_Angeles",
    "W. Europe Standard Time": "Europe/Berlin",
}


@dataclass(frozen=True)
class Window:
    """From `start` to before `end`."""

    start: datetime
    end: datetime


@dataclass
class GraphEvent:
    """`changed` numbers its last change. Who asks for immutable ids knows it by `event_id`, others by another."""

    event_id: str
    calendar: str
    kind: Kind
    start: datetime
    end: datetime
    changed: int
    fields: dict[str, Any] = field(default_factory=dict)
    master: str | None = None
    original: datetime | None = None
    is_deleted: bool = False

    @property
    def mutable_id(self) -> str:
        return f"moves={self.event_id.swapcase()}"  # as with the real ones, the letters' case is all of a difference

    @property
    def etag(self) -> str:
        return f'W/"{self.change_key}"'

    @property
    def change_key(self) -> str:
        return f"DwAAABYAAAC{self.changed:08}"

    def identity(self, immutable: bool) -> str:
        return self.event_id if immutable else self.mutable_id


class GraphCalendarsState:
    """The mailbox's calendars and the hands of other people in them."""

    def __init__(self) -> None:
        self.calendars: dict[str, dict[str, Any]] = {}
        self.events: dict[str, GraphEvent] = {}
        self.change_number = 0
        self._series: dict[str, list[GraphEvent]] = {}  # by their masters

    def add_calendar(self, calendar_id: str, *, name: str | None = None, **fields: Any) -> str:
        self.calendars[calendar_id] = {
            "id": calendar_id,
            "name": name or calendar_id,
            "color": "auto",
            "isDefaultCalendar": not self.calendars,
            "changeKey": "nfZyf7VcrEKLNoU37KWlkQAAA0x0+w==",
            "canEdit": True,
            "canShare": True,
            "canViewPrivateItems": True,
            "owner": {"name": "Alice A", "address": "alice@example.com"},
            **fields,
        }
        return calendar_id

    def remove_calendar(self, calendar_id: str) -> None:
        del self.calendars[calendar_id]
        self.events = {name: event for name, event in self.events.items() if event.calendar != calendar_id}

    def add(
        self,
        calendar_id: str,
        *,
        start: datetime | date | None = None,
        end: datetime | date | None = None,
        **fields: Any,
    ) -> str:
        """An event, of an hour or a day where `end` is left out."""
        begins = start if start is not None else _BEGINNING + timedelta(hours=self.change_number)
        is_day = not isinstance(begins, datetime)
        ends = end if end is not None else begins + (timedelta(days=1) if is_day else timedelta(hours=1))
        more = {"subject": "An event", "isAllDay": is_day, **fields}
        return self._new(calendar_id, "singleInstance", in_utc(begins), in_utc(ends), more).event_id

    def add_series(
        self, calendar_id: str, *, start: datetime, every_days: int = 7, count: int = 6, **fields: Any
    ) -> str:
        """`count` times at the same hour of the start's own zone. The id of the master."""
        length = timedelta(hours=1)
        more = {"subject": "A series", "isAllDay": False, **fields}
        more.setdefault("recurrence", _recurrence(start, every_days, count))
        master = self._new(calendar_id, "seriesMaster", in_utc(start), in_utc(start + length), more)
        for number in range(count):
            begins = in_utc(start + timedelta(days=every_days * number))  # by the clock on the wall
            occurrence = self._new(calendar_id, "occurrence", begins, begins + length, {})
            occurrence.master, occurrence.original = master.event_id, begins
            self._series.setdefault(master.event_id, []).append(occurrence)
        return master.event_id

    def change(self, event_id: str, **fields: Any) -> None:
        """`start` and `end` move it, also into a window or out of it."""
        event = self.events[event_id]
        event.start = in_utc(fields.pop("start", event.start))
        event.end = in_utc(fields.pop("end", event.end))
        if event.kind == "occurrence":
            event.kind = "exception"
            event.fields = {**self.events[event.master or ""].fields, "recurrence": None}
        event.fields = {**event.fields, **fields}
        self._touch(event)
        if event.master is not None:
            self._touch(self.events[event.master])

    def cancel(self, event_id: str, *, tells_occurrences: bool = False) -> None:
        """Deletes an event, an occurrence, or a series with all that belongs to it; of that a delta tells nothing,
        unless it `tells_occurrences`."""
        event = self.events[event_id]
        event.is_deleted = True
        self._touch(event)
        if event.master is not None:
            self._touch(self.events[event.master])
        for occurrence in self.occurrences(event_id):
            occurrence.is_deleted = True
            if tells_occurrences:
                self._touch(occurrence)

    def move_occurrence(self, master_id: str, number: int, to: datetime) -> str:
        """The `number`th, from 0, of those that are left. Its id stays, and it is an exception from now on."""
        occurrence = self.occurrences(master_id)[number]
        self.change(occurrence.event_id, start=to, end=to + (occurrence.end - occurrence.start))
        return occurrence.event_id

    def cancel_occurrence(self, master_id: str, number: int) -> str:
        occurrence = self.occurrences(master_id)[number]
        self.cancel(occurrence.event_id)
        return occurrence.event_id

    def occurrences(self, master_id: str) -> list[GraphEvent]:
        """What lives of a series, moved ones included."""
        return [each for each in self._series.get(master_id, ()) if not each.is_deleted]

    def lies_in(self, event: GraphEvent, window: Window) -> bool:
        """Whether a list of this window has it; a master, where any of its occurrences is there."""
        if event.is_deleted:
            return False
        if event.kind == "seriesMaster":
            return any(self.lies_in(each, window) for each in self.occurrences(event.event_id))
        return event.start < window.end and (event.end > window.start or event.start >= window.start)

    def rows(self, start: datetime, end: datetime) -> dict[str, dict[str, tuple[str | None, str]]]:
        """What a faithful mirror of the window holds now: `{calendar id: {event id: (etag, status)}}`, by immutable ids.
        A plain occurrence has no etag."""
        window = Window(start, end)
        held: dict[str, dict[str, tuple[str | None, str]]] = {name: {} for name in self.calendars}
        for event in self.events.values():
            if self.lies_in(event, window):
                etag = None if event.kind == "occurrence" else event.etag
                held[event.calendar][event.event_id] = (etag, "confirmed")
        return held

    def notify(self, event: GraphEvent, change_type: str) -> None:
        """Something in this event's calendar has changed."""

    def changed_since(self, calendar_id: str, number: int) -> Iterable[GraphEvent]:
        """In the order of the changes."""
        here = (
            each for each in self.events.values() if each.calendar == calendar_id and each.changed > number
        )
        return sorted(here, key=lambda each: each.changed)

    def _new(
        self, calendar_id: str, kind: Kind, start: datetime, end: datetime, fields: dict[str, Any]
    ) -> GraphEvent:
        self.change_number += 1
        # Base64 and longer than it need be, as theirs are.
        event_id = f"AAkALgAAAAAAHYQDEapmEc2byACqAC-EWg0A{uuid4().hex}AAA="
        event = GraphEvent(event_id, calendar_id, kind, start, end, self.change_number, fields)
        self.events[event_id] = event
        if kind != "occurrence":
            self.notify(event, "created")
        return event

    def _touch(self, event: GraphEvent) -> None:
        self.change_number += 1
        event.changed = self.change_number
        self.notify(event, "deleted" if event.is_deleted else "updated")


def in_utc(moment: datetime | date) -> datetime:
    """A day begins at midnight of UTC, as it does for Graph."""
    if isinstance(moment, datetime):
        return moment.astimezone(UTC)
    return datetime(moment.year, moment.month, moment.day, tzinfo=UTC)


def moment_of(written: dict[str, str]) -> datetime:
    """A `dateTimeTimeZone`, in UTC. Raises ValueError or KeyError."""
    zone = WINDOWS_ZONES.get(written["timeZone"], written["timeZone"])
    return datetime.fromisoformat(written["dateTime"]).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def updated_at(event: GraphEvent) -> str:
    return (_BEGINNING + timedelta(seconds=event.changed)).strftime("%Y-%m-%dT%H:%M:%S.0000000Z")


def _recurrence(start: datetime, every_days: int, count: int) -> dict[str, Any]:
    weekly = {"type": "weekly", "interval": every_days // 7, "daysOfWeek": [f"{start:%A}".lower()]}
    daily = {"type": "daily", "interval": every_days}
    span = {"type": "numbered", "startDate": f"{start:%Y-%m-%d}", "numberOfOccurrences": count}
    return {"pattern": daily if every_days % 7 else weekly, "range": span}
