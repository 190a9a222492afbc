"""What users want events to be, checked, and written in the words of both providers."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest

from app.calendars.draft import Draft, Time, draft_of
from app.calendars.event import Boundary
from app.calendars.google_writes import GoogleWrites
from app.calendars.graph_recurrence import patterned
from app.calendars.graph_writes import GraphWrites
from app.calendars.writes import identity_of
from app.errors import ValidationFailed

GRANT = UUID("01a1f82f-1e80-7000-8000-000000000001")
NINE = datetime(2026, 12, 1, 8, tzinfo=UTC)
HOUR: dict[str, Any] = {"start": Time(date_time=NINE), "end": Time(date_time=NINE.replace(hour=9))}
DAYS: dict[str, Any] = {"start": Time(date="2026-12-01"), "end": Time(date="2026-12-03")}
BERLIN = Boundary(at=NINE, zone="Europe/Berlin")
GOOGLE = GoogleWrites("https://www.googleapis.com")
GRAPH = GraphWrites("https://graph.microsoft.com/v1.0")


def mistakes(*, is_new: bool = True, **fields: Any) -> dict[str, str]:
    with pytest.raises(ValidationFailed) as caught:
        draft_of(fields, is_new=is_new)
    assert all(field in caught.value.detail for field in caught.value.fields)
    return caught.value.fields


def sent(draft: Draft, *, to: GoogleWrites | GraphWrites, change: bool = False) -> dict[str, Any]:
    request = (
        to.change("primary", "e1", draft, if_match=None) if change else to.create("c", draft, "identity")
    )
    return dict(json.loads(request.body))


def test_a_new_event_has_a_start_and_an_end() -> None:
    assert mistakes(title="Dentist").keys() == {"body.start", "body.end"}
    assert draft_of(HOUR, is_new=True).start == Boundary(at=NINE)
    assert draft_of(DAYS, is_new=True).end == Boundary(date=date(2026, 12, 3))


@pytest.mark.parametrize(
    ("start", "end", "field", "told"),
    [
        (Time(), HOUR["end"], "body.start", "either `date`"),
        (Time(date="2026-12-01", date_time=NINE), HOUR["end"], "body.start", "either `date`"),
        (Time(date="2026-02-30"), DAYS["end"], "body.start.date", "such as 2026-12-01"),
        (Time(date="20261201"), DAYS["end"], "body.start.date", "such as 2026-12-01"),
        (Time(date="2026-12-01", time_zone="UTC"), DAYS["end"], "body.start.time_zone", "left out"),
        (Time(date_time=NINE, time_zone="CET/Vienna"), HOUR["end"], "body.start.time_zone", "Europe/Berlin"),
        (Time(date_time=NINE, time_zone="localtime"), HOUR["end"], "body.start.time_zone", "localtime"),
        (DAYS["start"], HOUR["end"], "body.end", "`date`, as body.start"),
        (HOUR["start"], DAYS["end"], "body.end", "`date_time`, as body.start"),
        (DAYS["end"], DAYS["end"], "body.end.date", "the day after"),
        (HOUR["end"], HOUR["start"], "body.end.date_time", "not be before"),
    ],
)
def test_each_wrong_time_is_named_with_its_remedy(start: Time, end: Time, field: str, told: str) -> None:
    found = mistakes(start=start, end=end)
    assert found.keys() == {field} and told in found[field]


def test_an_event_may_end_when_it_begins_if_it_has_an_hour() -> None:
    assert draft_of({"start": HOUR["start"], "end": HOUR["start"]}, is_new=True).end == Boundary(at=NINE)


@pytest.mark.parametrize(
    "line",
    ["FREQ=DAILY", "RRULE", "RRULE:FREQ=DAILY\nEXDATE:20261202", "EXRULE:FREQ=DAILY", "RRULE: FREQ=DAILY"],
)
def test_a_line_that_is_none_of_rfc_5545_is_named(line: str) -> None:
    assert mistakes(**DAYS, recurrence=["RRULE:FREQ=DAILY", line]).keys() == {"body.recurrence.1"}


def test_a_rule_needs_to_know_whose_clock_it_goes_by() -> None:
    assert mistakes(**HOUR, recurrence=["RRULE:FREQ=DAILY"]).keys() == {"body.start.time_zone"}
    assert draft_of({**DAYS, "recurrence": ["RRULE:FREQ=DAILY"]}, is_new=True).recurrence


def test_an_address_that_is_none_is_named() -> None:
    assert mistakes(**HOUR, attendees=["bob@example.com", "bob"]).keys() == {"body.attendees.1"}


def test_a_change_names_something_and_takes_away_what_may_go() -> None:
    assert mistakes(is_new=False).keys() == {"body"}
    gone = dict.fromkeys(["start", "end", "status", "title", "attendees"])
    assert mistakes(is_new=False, **gone).keys() == {"body.start", "body.end", "body.status"}
    assert draft_of({"title": None}, is_new=False).given == {"title"}


def test_ids_of_new_events_are_such_as_google_takes_and_tell_grants_apart() -> None:
    found = identity_of(GRANT, "visit-7")
    assert len(found) == 52 and set(found) <= set("0123456789abcdefghijklmnopqrstuv")
    assert found == identity_of(GRANT, "visit-7") != identity_of(UUID(int=1), "visit-7")
    assert found != identity_of(GRANT, "visit-8")


def test_google_gets_times_with_their_zones_and_dates_without() -> None:
    zoned = draft_of({**HOUR, "start": Time(date_time=NINE, time_zone="Europe/Berlin")}, is_new=True)
    assert sent(zoned, to=GOOGLE) == {
        "id": "identity",
        "start": {"dateTime": "2026-12-01T08:00:00Z", "timeZone": "Europe/Berlin"},
        "end": {"dateTime": "2026-12-01T09:00:00Z"},
    }
    assert sent(draft_of(DAYS, is_new=True), to=GOOGLE)["end"] == {"date": "2026-12-03"}


def test_a_change_at_google_clears_the_other_kind_of_time_and_what_is_to_go() -> None:
    draft = draft_of({**DAYS, "title": None, "recurrence": None, "attendees": None}, is_new=False)
    assert sent(draft, to=GOOGLE, change=True) == {
        "start": {"date": "2026-12-01", "dateTime": None, "timeZone": None},
        "end": {"date": "2026-12-03", "dateTime": None, "timeZone": None},
        "summary": None,
        "recurrence": None,
        "attendees": [],
    }


def test_graph_gets_the_time_on_the_wall_and_the_name_that_windows_has_for_the_zone() -> None:
    zoned = draft_of({**HOUR, "start": Time(date_time=NINE, time_zone="Europe/Berlin")}, is_new=True)
    fields = sent(zoned, to=GRAPH)
    assert UUID(fields.pop("transactionId"))
    assert fields == {
        "start": {"dateTime": "2026-12-01T09:00:00", "timeZone": "W. Europe Standard Time"},
        "end": {"dateTime": "2026-12-01T09:00:00", "timeZone": "UTC"},
        "isAllDay": False,
    }
    days = sent(draft_of(DAYS, is_new=True), to=GRAPH)
    assert (days["isAllDay"], days["end"]) == (True, {"dateTime": "2026-12-03T00:00:00", "timeZone": "UTC"})


def test_graph_gets_something_empty_for_what_is_to_go() -> None:
    names = ("title", "description", "location", "recurrence", "attendees")
    assert sent(draft_of(dict.fromkeys(names), is_new=False), to=GRAPH, change=True) == {
        "subject": "",
        "body": {"contentType": "text", "content": ""},
        "location": {"displayName": ""},
        "recurrence": None,
        "attendees": [],
    }


def test_a_name_may_be_used_once_in_each_calendar_of_a_mailbox() -> None:
    draft = draft_of(DAYS, is_new=True)
    transactions = [json.loads(GRAPH.create(name, draft, "identity").body)["transactionId"] for name in "aab"]
    assert transactions[0] == transactions[1] != transactions[2]


@pytest.mark.parametrize("writes", [GOOGLE, GRAPH])
def test_ids_stay_one_segment_of_the_address(writes: GoogleWrites | GraphWrites) -> None:
    draft = draft_of({"title": "x"}, is_new=False)
    for request in (
        writes.change("a/../b?c#d", "e/../f?g", draft, if_match='"1"'),
        writes.delete("a/../b?c#d", "e/../f?g", if_match='"1"'),
        writes.read("a/../b?c#d", "e/../f?g"),
    ):
        assert request.url.endswith("/a%2F..%2Fb%3Fc%23d/events/e%2F..%2Ff%3Fg")
        assert request.method == "GET" or request.headers["If-Match"] == '"1"'


def test_the_primary_calendar_of_a_mailbox_has_an_address_of_its_own() -> None:
    assert GRAPH.read("primary", "e").url == "https://graph.microsoft.com/v1.0/me/calendar/events/e"
    assert GOOGLE.read("primary", "e").url.endswith("/calendar/v3/calendars/primary/events/e")


@pytest.mark.parametrize(
    ("event_id", "master", "original"),
    [
        ("abc_20261202", "abc", "2026-12-02"),
        ("abc_20261202T080000Z", "abc", "2026-12-02T08:00:00Z"),
        ("_a_b_20261202", "_a_b", "2026-12-02"),
    ],
)
def test_the_id_of_an_instance_at_google_tells_which_one_it_is(
    event_id: str, master: str, original: str
) -> None:
    removed = GOOGLE.removed(event_id)
    assert removed is not None and removed.is_cancelled
    assert (removed.external_id, removed.master_id, removed.original_start) == (event_id, master, original)


@pytest.mark.parametrize("event_id", ["abc", "abc_20261302", "abc_20261202T250000Z", "_20261202"])
def test_any_other_id_tells_nothing(event_id: str) -> None:
    assert GOOGLE.removed(event_id) is None


@pytest.mark.parametrize(
    ("line", "pattern", "span"),
    [
        ("FREQ=DAILY", {"type": "daily", "interval": 1}, {"type": "noEnd"}),
        (
            "FREQ=DAILY;INTERVAL=3;COUNT=5",
            {"type": "daily", "interval": 3},
            {"type": "numbered", "numberOfOccurrences": 5},
        ),
        (
            "FREQ=WEEKLY;BYDAY=TU,TH;UNTIL=20261231T080000Z",
            {
                "type": "weekly",
                "interval": 1,
                "daysOfWeek": ["tuesday", "thursday"],
                "firstDayOfWeek": "monday",
            },
            {"type": "endDate", "endDate": "2026-12-31"},
        ),
        (
            "FREQ=WEEKLY;WKST=SU;UNTIL=20261229T075959Z",  # a second before the last Tuesday's instance
            {"type": "weekly", "interval": 1, "daysOfWeek": ["tuesday"], "firstDayOfWeek": "sunday"},
            {"type": "endDate", "endDate": "2026-12-28"},
        ),
        (
            "FREQ=MONTHLY;UNTIL=20270301",
            {"type": "absoluteMonthly", "interval": 1, "dayOfMonth": 1},
            {"type": "endDate", "endDate": "2027-03-01"},
        ),
        (
            "FREQ=MONTHLY;BYDAY=1TU",
            {"type": "relativeMonthly", "interval": 1, "daysOfWeek": ["tuesday"], "index": "first"},
            {"type": "noEnd"},
        ),
        (
            "FREQ=YEARLY;BYMONTH=12;BYMONTHDAY=1",
            {"type": "absoluteYearly", "interval": 1, "dayOfMonth": 1, "month": 12},
            {"type": "noEnd"},
        ),
        (
            "FREQ=YEARLY;BYMONTH=12;BYDAY=1TU;COUNT=2",
            {
                "type": "relativeYearly",
                "interval": 1,
                "daysOfWeek": ["tuesday"],
                "index": "first",
                "month": 12,
            },
            {"type": "numbered", "numberOfOccurrences": 2},
        ),
    ],
)
def test_a_rule_that_graph_can_express_becomes_a_pattern(
    line: str, pattern: dict[str, Any], span: dict[str, Any]
) -> None:
    found = patterned([f"RRULE:{line}"], BERLIN)
    assert found == {"pattern": pattern, "range": {"startDate": "2026-12-01", **span}}


def test_the_last_weekday_of_a_month_is_told_from_the_fifth() -> None:
    found = patterned(["RRULE:FREQ=MONTHLY;BYDAY=-1TU"], Boundary(date=date(2026, 12, 29)))
    assert found["pattern"]["index"] == "last"


@pytest.mark.parametrize(
    "lines",
    [
        ["RRULE:FREQ=HOURLY"],
        ["RRULE:FREQ=DAILY", "EXDATE:20261202"],
        ["RDATE:20261202"],
        ["RRULE:FREQ=DAILY;BYDAY=MO"],
        ["RRULE:FREQ=DAILY;BYSETPOS=1"],
        ["RRULE:FREQ=DAILY;FREQ=WEEKLY"],
        ["RRULE:FREQ=DAILY;COUNT=2;UNTIL=20261231"],
        ["RRULE:FREQ=DAILY;COUNT=0"],
        ["RRULE:FREQ=DAILY;UNTIL=20261231T080000"],
        ["RRULE:FREQ=DAILY;UNTIL=20261101"],
        [
            "RRULE:FREQ=WEEKLY;BYDAY=WE"
        ],  # the start is a Tuesday, which RFC 5545 has as an instance all the same
        ["RRULE:FREQ=WEEKLY;BYDAY=2TU"],
        ["RRULE:FREQ=WEEKLY;WKST=XX"],
        ["RRULE:FREQ=MONTHLY;BYMONTHDAY=31"],
        ["RRULE:FREQ=MONTHLY;BYMONTHDAY=-1"],
        ["RRULE:FREQ=MONTHLY;BYDAY=TU"],
        ["RRULE:FREQ=MONTHLY;BYDAY=2TU"],
        ["RRULE:FREQ=MONTHLY;BYDAY=5TU"],
        ["RRULE:FREQ=YEARLY;BYDAY=1TU"],
        ["RRULE:FREQ=YEARLY;BYMONTH=11"],
    ],
)
def test_any_other_is_refused_with_its_reason(lines: list[str]) -> None:
    with pytest.raises(ValidationFailed) as caught:
        patterned(lines, BERLIN)
    assert caught.value.fields.keys() == {"body.recurrence"} and "must" in caught.value.detail


def test_days_that_not_every_month_has_are_refused() -> None:
    with pytest.raises(ValidationFailed):
        patterned(["RRULE:FREQ=MONTHLY"], Boundary(date=date(2026, 12, 29)))


def test_a_rule_without_its_start_is_refused() -> None:
    with pytest.raises(ValidationFailed) as caught:
        patterned(["RRULE:FREQ=DAILY"], None)
    assert caught.value.fields.keys() == {"body.start"}
