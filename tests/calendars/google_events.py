"""The calendars behind the fake of Google's API: what is in them, and every change as others make it."""

from __future__ import annotations

import copy
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

_BEGINNING = datetime(2026, 11, 1, tzinfo=UTC)


class GoogleCalendar:
    """`changed` has for each event the number of its last change; those that were deleted stay as tombstones."""

    def __init__(self, entry: dict[str, Any], *, watchable: bool) -> None:
        self.entry = entry
        self.watchable = watchable
        self.events: dict[str, dict[str, Any]] = {}
        self.changed: dict[str, int] = {}

    def is_living(self, event_id: str) -> bool:
        return event_id in self.events and self.events[event_id]["status"] != "cancelled"

    def is_exception(self, event_id: str) -> bool:
        return "recurringEventId" in self.events[event_id]

    def is_mirrored(self, event_id: str) -> bool:
        """Whether a faithful mirror holds it: what lives, and the cancelled exceptions of series that live."""
        master = self.events[event_id].get("recurringEventId")
        return self.is_living(event_id) if master is None else self.is_living(master)

    def rendered(self, event_id: str) -> dict[str, Any]:
        """As lists have it: of what is cancelled no more than is guaranteed."""
        event = self.events[event_id]
        if event["status"] != "cancelled":
            return event
        kept = ("kind", "etag", "id", "status", "recurringEventId", "originalStartTime")
        return {name: event[name] for name in kept if name in event}


class GoogleCalendarsState:
    """The account's calendars and the hands of other people in them."""

    def __init__(self, zone: str = "America/Los_Angeles") -> None:
        self.zone = zone
        self.calendars: dict[str, GoogleCalendar] = {}
        self.change_number = 0

    def add_calendar(
        self, calendar_id: str, *, summary: str | None = None, watchable: bool = True, **fields: Any
    ) -> str:
        self.change_number += 1
        entry = {
            "kind": "calendar#calendarListEntry",
            "etag": f'"{self.change_number:016}"',
            "id": calendar_id,
            "summary": summary or calendar_id,
            "timeZone": self.zone,
            "accessRole": "owner",
            "selected": True,
            **({} if self.calendars else {"primary": True}),
            **fields,
        }
        self.calendars[calendar_id] = GoogleCalendar(entry, watchable=watchable)
        return calendar_id

    def remove_calendar(self, calendar_id: str) -> None:
        del self.calendars[calendar_id]

    def add(
        self,
        calendar_id: str,
        *,
        start: datetime | date | None = None,
        end: datetime | date | None = None,
        event_id: str | None = None,
        **fields: Any,
    ) -> str:
        """An event, of an hour or a day where `end` is left out. A `datetime` may have a zone of its own."""
        begins = start if start is not None else _BEGINNING + timedelta(hours=self.change_number)
        length = timedelta(hours=1) if isinstance(begins, datetime) else timedelta(days=1)
        times = {"start": self.time(begins), "end": self.time(end if end is not None else begins + length)}
        return self.store(calendar_id, event_id or uuid4().hex, {"summary": "An event", **times, **fields})

    def add_series(
        self,
        calendar_id: str,
        *,
        start: datetime | date,
        rule: str = "RRULE:FREQ=WEEKLY;COUNT=6",
        **fields: Any,
    ) -> str:
        return self.add(calendar_id, start=start, recurrence=[rule], **fields)

    def change(self, calendar_id: str, event_id: str, **fields: Any) -> None:
        event = self.calendars[calendar_id].events[event_id]
        self.store(calendar_id, event_id, {**event, "sequence": event["sequence"] + 1, **fields})

    def cancel(self, calendar_id: str, event_id: str) -> None:
        """Deletes an event, a series (its exceptions go with it, unannounced) or an exception."""
        event = self.calendars[calendar_id].events[event_id]
        self.store(calendar_id, event_id, {**event, "status": "cancelled"})

    def delete_series(self, calendar_id: str, master_id: str, *, tells_exceptions: bool = False) -> None:
        """With `tells_exceptions` the next incremental list has a tombstone for each exception too."""
        self.cancel(calendar_id, master_id)
        if tells_exceptions:
            for exception in self.exceptions(calendar_id, master_id):
                self.cancel(calendar_id, exception)

    def move_instance(
        self, calendar_id: str, master_id: str, original: datetime | date, to: datetime | date, **fields: Any
    ) -> str:
        """The id of the exception. `original` is when the instance would be by the rule."""
        master = self.calendars[calendar_id].events[master_id]
        length = _when(master["end"]) - _when(master["start"])
        times = {"start": self.time(to), "end": self.time(to + length)}
        return self._except(calendar_id, master_id, original, {**times, **fields})

    def cancel_instance(self, calendar_id: str, master_id: str, original: datetime | date) -> str:
        return self._except(calendar_id, master_id, original, {"status": "cancelled"})

    def exceptions(self, calendar_id: str, master_id: str) -> list[str]:
        events = self.calendars[calendar_id].events
        return [name for name, event in events.items() if event.get("recurringEventId") == master_id]

    def rows(self) -> dict[str, dict[str, tuple[str, str]]]:
        """What a faithful mirror holds now: `{calendar id: {event id: (etag, status)}}`."""
        return {
            calendar_id: {
                event_id: (event["etag"], event["status"])
                for event_id, event in calendar.events.items()
                if calendar.is_mirrored(event_id)
            }
            for calendar_id, calendar in self.calendars.items()
        }

    def time(self, moment: datetime | date) -> dict[str, str]:
        if not isinstance(moment, datetime):
            return {"date": moment.isoformat()}
        zone = getattr(moment.tzinfo, "key", self.zone)
        return {"dateTime": moment.isoformat(), "timeZone": zone}

    def store(self, calendar_id: str, event_id: str, fields: dict[str, Any]) -> str:
        """Every change of an event goes through here; `etag` and `updated` are new after each."""
        calendar = self.calendars[calendar_id]
        self.change_number += 1
        updated = _BEGINNING + timedelta(seconds=self.change_number)
        person = {"email": "alice@example.com", "self": True}
        calendar.events[event_id] = {
            "kind": "calendar#event",
            "status": "confirmed",
            "htmlLink": f"https://www.google.com/calendar/event?eid={event_id}",
            "created": _stamp(updated),
            "creator": person,
            "organizer": person,
            "iCalUID": f"{event_id.partition('_')[0]}@google.com",
            "sequence": 0,
            "eventType": "default",
            **copy.deepcopy(fields),
            "id": event_id,
            "etag": f'"{int(updated.timestamp() * 2000)}"',
            "updated": _stamp(updated),
        }
        calendar.changed[event_id] = self.change_number
        self.notify(calendar_id)
        return event_id

    def notify(self, calendar_id: str) -> None:
        """Something in this calendar has changed."""

    def _except(
        self, calendar_id: str, master_id: str, original: datetime | date, fields: dict[str, Any]
    ) -> str:
        calendar = self.calendars[calendar_id]
        event_id = instance_id(master_id, original)
        before = calendar.events.get(event_id) or calendar.events[master_id]
        kept = {name: value for name, value in before.items() if name not in ("recurrence", "created")}
        identity = {"recurringEventId": master_id, "originalStartTime": self.time(original)}
        return self.store(calendar_id, event_id, {**kept, "status": "confirmed", **identity, **fields})


def patched(kept: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What is not named stays, what is null goes; objects within are merged in the same way, lists are not."""
    merged = dict(kept)
    for name, value in given.items():
        inner = kept.get(name)
        if isinstance(value, dict):
            value = patched(inner if isinstance(inner, dict) else {}, value)
        merged[name] = value
    return {name: value for name, value in merged.items() if value is not None}


def instance_id(master_id: str, original: datetime | date) -> str:
    if isinstance(original, datetime):
        return f"{master_id}_{original.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    return f"{master_id}_{original:%Y%m%d}"


def original_of(instance: str) -> datetime | date:
    """The time in an instance's id. Raises ValueError."""
    written = instance.rpartition("_")[2]
    if len(written) == 8:
        return datetime.strptime(written, "%Y%m%d").replace(tzinfo=UTC).date()
    return datetime.strptime(written, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def _when(time: dict[str, str]) -> datetime | date:
    return (
        datetime.fromisoformat(time["dateTime"]) if "dateTime" in time else date.fromisoformat(time["date"])
    )


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")
