"""Of the OpenAPI document's examples, those of calendars."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from app.api.examples_shared import CURSOR

_EVENT_START: JsonValue = {"date_time": "2026-12-01T08:00:00Z", "time_zone": "Europe/Berlin"}
_EVENT_END: JsonValue = {"date_time": "2026-12-01T09:00:00Z", "time_zone": "Europe/Berlin"}
_NEW_EVENT: JsonValue = {
    "user_id": "user-42",
    "provider": "google",
    "id": "visit-7",
    "title": "Dentist",
    "location": "Baker Street 221b",
    "start": _EVENT_START,
    "end": _EVENT_END,
    "attendees": ["bob@example.com"],
}
_CALENDAR_EVENT: dict[str, JsonValue] = {
    "id": "7kukuqrfedlm2f9t",
    "calendar_id": "ada@example.com",
    "provider": "google",
    "account": "default",
    "title": "Dentist",
    "description": None,
    "location": "Baker Street 221b",
    "status": "confirmed",
    "start": {"date": None, "date_time": "2026-12-01T08:00:00Z", "time_zone": "Europe/Berlin"},
    "end": {"date": None, "date_time": "2026-12-01T09:00:00Z", "time_zone": "Europe/Berlin"},
    "all_day": False,
    "recurring_event_id": None,
    "original_start": None,
    "recurrence": [],
    "etag": '"3181161784712000"',
    "updated_at": "2026-11-22T10:00:00Z",
    "organizer": {"email": "ada@example.com", "name": "Ada", "reply": None},
    "attendees": [{"email": "bob@example.com", "name": None, "reply": "needs_action"}],
    "html_link": "https://www.google.com/calendar/event?eid=7kukuqrfedlm2f9t",
}
_SYNCED: JsonValue = {
    "id": "ada@example.com",
    "name": "Ada",
    "provider": "google",
    "account": "default",
    "status": "success",
    "mode": "incremental",
    "added": 1,
    "updated": 2,
    "deleted": 0,
    "rebuilt": False,
    "error": None,
}
_SYNC: dict[str, JsonValue] = {
    "status": "success",
    "message": "Your Google Calendar is up to date.",
    "error_type": None,
    "calendars": [_SYNCED],
    "run_id": "01a202b2-c500-7000-8000-000000000003",
}
_CALENDAR: JsonValue = {
    "id": "ada@example.com",
    "name": "Ada",
    "provider": "google",
    "account": "default",
    "time_zone": "Europe/Berlin",
    "access_role": "owner",
    "primary": True,
    "last_synced_at": "2026-11-22T10:00:00Z",
    "last_full_sync_at": "2026-11-20T09:00:00Z",
    "next_sync_at": "2026-11-22T10:15:00Z",
    "failures": 0,
    "error_type": None,
}
_OCCURRENCE: JsonValue = {**_CALENDAR_EVENT, "partly_read": False}
_SYNC_RUN: JsonValue = {
    "provider": "google",
    "account": "default",
    "trigger": "scheduler",
    "started_at": "2026-11-22T10:00:00Z",
    "ended_at": "2026-11-22T10:00:01Z",
    **_SYNC,
}

SHAPES: Mapping[str, JsonValue] = {
    "AutoSyncBody": {"user_id": "user-42", "min_interval": 300},
    "CalendarAnswer": _CALENDAR,
    "CalendarPage": {"items": [_CALENDAR], "next_cursor": None},
    "CalendarRunAnswer": _SYNC_RUN,
    "CalendarRunPage": {"items": [_SYNC_RUN], "next_cursor": CURSOR},
    "EventAnswer": _CALENDAR_EVENT,
    "EventBody": _NEW_EVENT,
    "EventPatch": {"user_id": "user-42", "title": "Dentist, at last", "location": None},
    "OccurrenceAnswer": _OCCURRENCE,
    "OccurrencePage": {"items": [_OCCURRENCE], "next_cursor": None},
    "SyncAnswer": {**_SYNC, "next": "2026-11-22T10:15:00Z"},
    "SyncBody": {"user_id": "user-42", "provider": "google", "calendar_ids": ["primary"]},
}
