"""Events of both providers as this service shows them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pytest

from app.calendars.google import event_of
from app.calendars.graph_event import read_event
from app.calendars.shown import Person, ShownTime, shown
from app.oauth.parts import CalendarApi

NINE = datetime(2026, 12, 1, 8, tzinfo=UTC)
GOOGLE: dict[str, Any] = {
    "id": "e1",
    "etag": '"7"',
    "status": "tentative",
    "updated": "2026-11-22T10:00:00.000Z",
    "summary": "Dentist",
    "location": "Baker Street",
    "htmlLink": "https://www.google.com/calendar/event?eid=e1",
    "organizer": {"email": "ada@example.com", "displayName": "Ada", "self": True},
    "attendees": [
        {"email": "bob@example.com", "responseStatus": "needsAction"},
        {"email": "eve@example.com", "displayName": "Eve", "responseStatus": "declined"},
    ],
    "start": {"dateTime": "2026-12-01T09:00:00+01:00", "timeZone": "Europe/Berlin"},
    "end": {"dateTime": "2026-12-01T10:00:00+01:00", "timeZone": "Europe/Berlin"},
}
OUTLOOK: dict[str, Any] = {
    "id": "AAMk=",
    "@odata.etag": 'W/"7"',
    "lastModifiedDateTime": "2026-11-22T10:00:00.0000000Z",
    "subject": "Dentist",
    "body": {"contentType": "html", "content": "<p>Bring the card</p>"},
    "location": {"displayName": "Baker Street"},
    "webLink": "https://outlook.office365.com/owa/?itemid=AAMk",
    "showAs": "tentative",
    "type": "singleInstance",
    "organizer": {"emailAddress": {"name": "Ada", "address": "ada@example.com"}},
    "attendees": [
        {
            "emailAddress": {"name": "Bob", "address": "bob@example.com"},
            "status": {"response": "notResponded"},
        },
        {"emailAddress": {"address": "eve@example.com"}, "status": {"response": "tentativelyAccepted"}},
    ],
    "originalStartTimeZone": "W. Europe Standard Time",
    "start": {"dateTime": "2026-12-01T08:00:00.0000000", "timeZone": "UTC"},
    "end": {"dateTime": "2026-12-01T09:00:00.0000000", "timeZone": "UTC"},
}


def test_an_event_of_google() -> None:
    found = shown(event_of(GOOGLE, None), "google")
    assert (found.id, found.title, found.description, found.location) == (
        "e1",
        "Dentist",
        None,
        "Baker Street",
    )
    assert (found.status, found.etag, found.all_day) == ("tentative", '"7"', False)
    assert found.start == ShownTime(None, NINE, "Europe/Berlin")
    assert found.organizer == Person("ada@example.com", "Ada")
    assert found.attendees == (
        Person("bob@example.com", None, "needs_action"),
        Person("eve@example.com", "Eve", "declined"),
    )
    assert found.html_link == GOOGLE["htmlLink"]


def test_an_event_of_outlook() -> None:
    found = shown(read_event(OUTLOOK), "microsoft")
    assert (found.id, found.title, found.description) == ("AAMk=", "Dentist", "<p>Bring the card</p>")
    assert (found.status, found.etag, found.location) == ("tentative", 'W/"7"', "Baker Street")
    assert found.start is not None and found.start.date_time == NINE
    assert found.organizer == Person("ada@example.com", "Ada")
    assert found.attendees == (
        Person("bob@example.com", "Bob", "needs_action"),
        Person("eve@example.com", None, "tentative"),
    )
    assert found.html_link == OUTLOOK["webLink"]


def test_an_all_day_event_has_dates() -> None:
    days = {**GOOGLE, "start": {"date": "2026-12-01"}, "end": {"date": "2026-12-03"}}
    found = shown(event_of(days, "Europe/Berlin"), "google")
    assert (found.all_day, found.end) == (True, ShownTime("2026-12-03", None, None))


def test_a_cancelled_instance_has_no_times() -> None:
    cancelled = {
        "id": "e1_20261202",
        "status": "cancelled",
        "recurringEventId": "e1",
        "originalStartTime": {"date": "2026-12-02"},
    }
    found = shown(event_of(cancelled, None), "google")
    assert (found.start, found.end, found.all_day) == (None, None, False)
    assert (found.recurring_event_id, found.original_start) == ("e1", "2026-12-02")


@pytest.mark.parametrize(("raw", "api"), [(GOOGLE, "google"), (OUTLOOK, "microsoft")])
@pytest.mark.parametrize("odd", [None, 7, "odd", ["odd"], {"odd": {}}, [{"emailAddress": 7, "status": "x"}]])
def test_what_is_not_understood_is_left_out(raw: dict[str, Any], api: CalendarApi, odd: Any) -> None:
    names = ("summary", "subject", "location", "body", "organizer", "attendees", "htmlLink", "webLink")
    fields = {**raw, **dict.fromkeys(names, odd)}
    found = shown(event_of(fields, None) if api == "google" else read_event(fields), api)
    assert asdict(found)["id"] == raw["id"] and found.html_link is None and found.organizer is None


def test_a_link_leads_to_a_web_page_or_nowhere() -> None:
    found = shown(event_of({**GOOGLE, "htmlLink": "javascript:alert(1)"}, None), "google")
    assert found.html_link is None
