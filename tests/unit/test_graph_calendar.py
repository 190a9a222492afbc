"""What Microsoft Graph is asked about calendars, and what is made of its answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.calendars.event import Boundary, Event, Kind
from app.calendars.graph import GraphCalendar, is_below
from app.calendars.graph_event import zone_of
from app.calendars.trouble import ErrorType, SyncFailed
from app.calendars.upstream import Page, Place, RemoteCalendar, Upstream, Window
from app.oauth.wire import HttpAnswer

BASE = "https://graph.microsoft.com/v1.0"
GRAPH = GraphCalendar(BASE)
WINDOW = Window(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
DELTA = f"{BASE}/me/calendars/AAMk%3D/calendarView/delta?$deltatoken=R0usmcFuQtZdtpk4"
MEETING = {
    "@odata.type": "#microsoft.graph.event",
    "@odata.etag": 'W/"EZ9r3czxY0m2jz8c45czkwAAFXcvIw=="',
    "type": "singleInstance",
    "id": "AAMkADJVxRAAA=",
    "iCalUId": "040000008200E00074C5B7101A82E008",
    "lastModifiedDateTime": "2026-03-01T07:30:00.1234567Z",
    "originalStartTimeZone": "W. Europe Standard Time",
    "originalEndTimeZone": "Pacific Standard Time",
    "isAllDay": False,
    "isCancelled": False,
    "start": {"dateTime": "2026-03-02T09:00:00.0000000", "timeZone": "UTC"},
    "end": {"dateTime": "2026-03-02T09:30:00.0000000", "timeZone": "UTC"},
}


def answer(content: Any, status: int = 200, **headers: str) -> HttpAnswer:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return HttpAnswer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def refusal(status: int, code: str, inner: str | None = None, **headers: str) -> HttpAnswer:
    error = {"code": code, "message": "syncStateNotFound, says the text", "innerError": {"code": inner}}
    return answer({"error": error}, status, **headers)


def page(*items: Any, **links: str) -> Page:
    return GRAPH.read_events(answer({"value": items, **(links or {"@odata.deltaLink": DELTA})}))


def read(**changed: Any) -> Event:
    [event] = page({**MEETING, **changed}).events
    return event


def noon(year: int, month: int, day: int, hour: int) -> datetime:
    return datetime(year, month, day, hour, tzinfo=UTC)


# What is asked


def test_it_is_an_upstream() -> None:
    upstream: Upstream = GRAPH
    assert (upstream.title, upstream.windowed) == ("Outlook Calendar", True)


def test_a_baseline_asks_for_its_window_only() -> None:
    asked = GRAPH.list_events("AAMk/+=", Place(), WINDOW)
    parts = urlsplit(asked.url)
    assert (asked.method, asked.body) == ("GET", b"")
    assert parts.path == "/v1.0/me/calendars/AAMk%2F%2B%3D/calendarView/delta"
    assert parse_qs(parts.query) == {
        "startDateTime": ["2026-01-01T00:00:00Z"],
        "endDateTime": ["2027-01-01T00:00:00Z"],
    }


@pytest.mark.parametrize("place", [Place(), Place(cursor=DELTA), Place(cursor=DELTA, page=DELTA + "2")])
def test_every_request_says_what_it_prefers(place: Place) -> None:
    for asked in (GRAPH.list_events("c", place, WINDOW), GRAPH.list_calendars(place.page)):
        preferred = asked.headers["Prefer"].split(", ")
        assert preferred[0].startswith("odata.maxpagesize=")
        assert preferred[1:] == ['outlook.timezone="UTC"', 'IdType="ImmutableId"']


def test_links_are_followed_as_they_are() -> None:
    assert GRAPH.list_events("c", Place(cursor=DELTA), None).url == DELTA
    assert GRAPH.list_events("c", Place(cursor=DELTA, page=DELTA + "2"), None).url == DELTA + "2"
    assert GRAPH.list_calendars(f"{BASE}/me/calendars?$skip=10").url == f"{BASE}/me/calendars?$skip=10"


ELSEWHERE = [
    "https://graph.microsoft.com.evil.example/v1.0/me/calendars",
    "https://graph.microsoft.com@evil.example/v1.0/me",
    "https://evil.example\\@graph.microsoft.com/v1.0/me",
    "https://graph.microsoft.com:8443/v1.0/me",
    "http://graph.microsoft.com/v1.0/me",
    "https://graph.microsoft.com/beta/me",
    "https://graph.microsoft.com/v1.0evil/me",
    "https://graph.microsoft.com/v1.0/../beta/me",
    "https://graph.microsoft.com/v1.0/%2e%2E/beta/me",
    "https://graph.microsoft.com/v1.0/..%5cbeta/me",
    "https://graph.microsoft.com/v1.0/me\r\nX-More: 1",
    "https://graph.microsoft.com/v1.0/me#",
    "https://[/v1.0/me",
    "//graph.microsoft.com/v1.0/me",
    "/v1.0/me/calendars",
    "https://graph.microsoft.com",
]


@pytest.mark.parametrize("link", ELSEWHERE)
@pytest.mark.parametrize("name", ["@odata.nextLink", "@odata.deltaLink"])
def test_no_link_leads_away_from_the_api(link: str, name: str) -> None:
    with pytest.raises(SyncFailed) as failed:
        page(MEETING, **{name: link})
    assert failed.value.trouble.provider_code == "foreign_link"
    with pytest.raises(SyncFailed):
        GRAPH.list_events("c", Place(cursor=link), None)


def test_a_list_of_calendars_is_held_to_the_api_as_well() -> None:
    with pytest.raises(SyncFailed):
        GRAPH.read_calendars(answer({"value": [], "@odata.nextLink": "https://evil.example/v1.0/me"}))


def test_an_api_may_be_anywhere() -> None:
    assert is_below("http://127.0.0.1:8090/a/v1.0/me?x=%2e%2e", "http://127.0.0.1:8090/a/v1.0")
    assert not is_below("http://127.0.0.1:8090/v1.0/me", "http://127.0.0.1:8090/a/v1.0")


def test_another_api_is_another_list() -> None:
    assert GRAPH.params_hash() == GraphCalendar(BASE + "/").params_hash()
    assert GRAPH.params_hash() != GraphCalendar("https://graph.microsoft.us/v1.0").params_hash()


# Calendars


def test_calendars_come_by_pages() -> None:
    link = f"{BASE}/me/calendars?$skip=2"
    owned = {
        "id": "A",
        "name": "Calendar",
        "isDefaultCalendar": True,
        "canEdit": True,
        "canShare": True,
        "changeKey": "k",
    }
    content = {
        "value": [owned, {"id": "a", "canEdit": True}, {"id": "b", "name": "Holidays"}, {"name": "none"}, 7]
    }
    calendars = GRAPH.read_calendars(answer({**content, "@odata.nextLink": link}))
    assert calendars.items == (
        RemoteCalendar("A", "Calendar", None, "owner", True, "k"),
        RemoteCalendar("a", "a", None, "writer", False, None),
        RemoteCalendar("b", "Holidays", None, "reader", False, None),
    )
    assert calendars.next_page == link
    assert GRAPH.read_calendars(answer(content)).next_page is None


# Events


def test_a_meeting() -> None:
    event = read()
    assert event == Event(
        external_id="AAMkADJVxRAAA=",
        kind=Kind.SINGLE,
        status="confirmed",
        start=Boundary(at=datetime(2026, 3, 2, 9, tzinfo=UTC), zone="Europe/Berlin"),
        end=Boundary(at=datetime(2026, 3, 2, 9, 30, tzinfo=UTC), zone="America/Los_Angeles"),
        ical_uid="040000008200E00074C5B7101A82E008",
        etag='W/"EZ9r3czxY0m2jz8c45czkwAAFXcvIw=="',
        updated_at=datetime(2026, 3, 1, 7, 30, 0, 123456, tzinfo=UTC),
    )
    assert event.raw == MEETING


@pytest.mark.parametrize(
    ("changed", "status"),
    [({}, "confirmed"), ({"isCancelled": True}, "cancelled"), ({"showAs": "tentative"}, "tentative")],
)
def test_the_status(changed: Mapping[str, Any], status: str) -> None:
    assert read(**changed).status == status


def test_what_was_cancelled_needs_no_time() -> None:
    event = read(isCancelled=True, start=None, end=None)
    assert (event.start, event.end, event.is_cancelled) == (None, None, True)


def test_a_series_has_its_instances_beside_it() -> None:
    pattern = {
        "pattern": {"type": "weekly", "interval": 1},
        "range": {"type": "noEnd", "endDate": "0001-01-01"},
    }
    master = read(type="seriesMaster", recurrence=pattern)
    assert (master.kind, master.recurrence, master.master_id) == (Kind.SERIES, (), None)


def test_a_plain_occurrence_says_hardly_anything() -> None:
    fields = {name: MEETING[name] for name in ("start", "end")}
    [event] = page({"id": "o", "type": "occurrence", "seriesMasterId": "M", **fields}).events
    assert event == Event(
        "o",
        Kind.INSTANCE,
        "confirmed",
        Boundary(at=noon(2026, 3, 2, 9), zone="UTC"),
        Boundary(at=datetime(2026, 3, 2, 9, 30, tzinfo=UTC), zone="UTC"),
        master_id="M",
    )


@pytest.mark.parametrize(("kind", "meant"), [("occurrence", Kind.INSTANCE), ("exception", Kind.EXCEPTION)])
def test_an_instance_tells_which_one_it_was(kind: str, meant: Kind) -> None:
    event = read(type=kind, seriesMasterId="M", originalStart="2026-03-02T08:00:00Z")
    assert (event.kind, event.master_id, event.original_start) == (meant, "M", "2026-03-02T08:00:00Z")


@pytest.mark.parametrize(
    "original", [None, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.9999999Z", "soon", 7]
)
def test_no_date_is_no_original_start(original: object) -> None:
    assert read(type="exception", seriesMasterId="M", originalStart=original).original_start is None


@pytest.mark.parametrize(
    ("fields", "meant"),
    [
        ({"seriesMasterId": "M"}, Kind.INSTANCE),
        ({"recurrence": {"pattern": {}}}, Kind.SERIES),
        ({"recurrence": None}, Kind.SINGLE),
    ],
)
def test_a_kind_that_is_not_told_is_seen_by_the_rest(fields: Mapping[str, Any], meant: Kind) -> None:
    assert read(**{"type": None, **fields}).kind == meant


ALL_DAY = {
    "isAllDay": True,
    "start": {"dateTime": "2026-03-02T00:00:00.0000000", "timeZone": "UTC"},
    "end": {"dateTime": "2026-03-04T00:00:00.0000000", "timeZone": "UTC"},
    "originalStartTimeZone": "Pacific Standard Time",
}


def test_an_all_day_event_is_dates_with_an_exclusive_end() -> None:
    event = read(**ALL_DAY)
    assert (event.start, event.end) == (Boundary(date=date(2026, 3, 2)), Boundary(date=date(2026, 3, 4)))


@pytest.mark.parametrize(
    ("original", "meant"),
    [
        ("2026-03-02T00:00:00Z", "2026-03-02"),
        ("2026-03-02T08:00:00Z", "2026-03-02"),  # midnight in its zone
        ("2026-07-02T07:00:00Z", "2026-07-02"),  # so is this, in summer
        ("2026-03-02T17:00:00Z", "2026-03-02T17:00:00Z"),  # it had a time before it was moved
    ],
)
def test_the_original_start_of_an_all_day_event_is_a_date(original: str, meant: str) -> None:
    assert (
        read(**ALL_DAY, type="exception", seriesMasterId="M", originalStart=original).original_start == meant
    )


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("W. Europe Standard Time", "Europe/Berlin"),
        ("India Standard Time", "Asia/Calcutta"),
        ("UTC", "UTC"),
        ("tzone://Microsoft/Utc", "UTC"),
        ("Europe/Paris", "Europe/Paris"),
        ("tzone://Microsoft/Custom", None),
        ("Customized Time Zone", None),
        ("../../etc/passwd", None),
        ("", None),
        (None, None),
    ],
)
def test_zones_of_windows(name: str | None, zone: str | None) -> None:
    assert zone_of(name) == zone


def test_a_zone_that_nobody_knows_leaves_the_instant() -> None:
    event = read(originalStartTimeZone="tzone://Microsoft/Custom")
    assert event.start == Boundary(at=noon(2026, 3, 2, 9), zone="UTC")


def test_times_that_are_not_in_utc_are_moved_there() -> None:
    local = {"dateTime": "2026-07-02T09:00:00.0000000", "timeZone": "Pacific Standard Time"}
    assert read(start=local).start == Boundary(at=noon(2026, 7, 2, 16), zone="Europe/Berlin")


def test_the_ends_of_time_are_borne() -> None:
    first = {"dateTime": "0001-01-01T00:00:00.0000000", "timeZone": "UTC"}
    last = {"dateTime": "9999-12-31T23:59:59.9999999", "timeZone": "UTC"}
    event = read(start=first, end=last, lastModifiedDateTime="0001-01-01T00:00:00Z")
    assert event.start is not None and event.start.at == datetime.min.replace(tzinfo=UTC)
    assert event.end is not None and event.end.at == datetime.max.replace(tzinfo=UTC)
    assert event.updated_at is None


UNREADABLE: list[Mapping[str, Any]] = [
    {"start": None},
    {"end": "2026-03-02"},
    {"start": {"dateTime": "2026-13-02T09:00:00", "timeZone": "UTC"}},
    {"start": {"dateTime": 7, "timeZone": "UTC"}},
    {"start": {"dateTime": "2026-03-02T09:00:00", "timeZone": "tzone://Microsoft/Custom"}},
    {"start": {"dateTime": "0001-01-01T00:00:00", "timeZone": "Tokyo Standard Time"}},
    {"start": {"dateTime": "9999-12-31T23:59:59-14:00", "timeZone": "UTC"}},
]


@pytest.mark.parametrize("changed", UNREADABLE)
def test_one_event_that_cannot_be_read_stops_no_other(changed: Mapping[str, Any]) -> None:
    read_page = page({**MEETING, "id": "bad", **changed}, MEETING)
    assert [event.external_id for event in read_page.events] == [MEETING["id"]]
    assert read_page.unreadable == ("bad",)


def test_what_has_no_id_is_counted_and_left_out() -> None:
    read_page = page({**MEETING, "id": None}, 7, {"@removed": {"reason": "deleted"}}, MEETING)
    assert [event.external_id for event in read_page.events] == [MEETING["id"]]
    assert (read_page.removed, len(read_page.unreadable)) == ((), 1)


# Pages


def test_what_is_gone_is_removed_and_ids_keep_their_case() -> None:
    read_page = page({"id": "AAb", "@removed": {"reason": "deleted"}}, {"id": "AAB", "@removed": {}})
    assert (read_page.events, read_page.removed) == ((), ("AAb", "AAB"))


def test_of_what_a_page_tells_of_an_event_twice_the_last_counts() -> None:
    gone = {"id": MEETING["id"], "@removed": {"reason": "changed"}}
    older = {**MEETING, "isCancelled": True, "lastModifiedDateTime": "2026-02-01T00:00:00Z"}
    assert (page(MEETING, gone).events, page(MEETING, gone).removed) == ((), (MEETING["id"],))
    assert [event.status for event in page(gone, MEETING, older).events] == ["confirmed"]


def test_only_the_last_page_has_a_cursor() -> None:
    middle = page(**{"@odata.nextLink": DELTA + "2", "@odata.deltaLink": DELTA})
    assert (middle.next_page, middle.cursor) == (DELTA + "2", None)
    assert (page().next_page, page().cursor) == (None, DELTA)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"value": {}}',
        b'{"value": []}',
        json.dumps({"@odata.deltaLink": DELTA}).encode(),
    ],
)
def test_what_is_no_page_is_an_unusable_answer(body: bytes) -> None:
    with pytest.raises(SyncFailed) as failed:
        GRAPH.read_events(answer(body))
    assert failed.value.trouble.error_type is ErrorType.PROVIDER_UNAVAILABLE


_TIMES = st.sampled_from(
    ["0001-01-01T00:00:00", "9999-12-31T23:59:59.9999999", "2026-03-29T02:30:00", "x", None, 1]
)
_ZONES = st.sampled_from(
    ["UTC", "Tokyo Standard Time", "Hawaiian Standard Time", "tzone://Microsoft/Custom", None]
)
_BOUNDARIES = st.fixed_dictionaries({"dateTime": _TIMES, "timeZone": _ZONES})
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
_EVENTS = st.fixed_dictionaries(
    {"id": st.sampled_from(["a", "b"]) | _ANYTHING},
    optional={
        "type": st.sampled_from(["singleInstance", "seriesMaster", "occurrence", "exception"]) | _ANYTHING,
        "start": _BOUNDARIES | _ANYTHING,
        "end": _BOUNDARIES | _ANYTHING,
        "isAllDay": st.booleans() | _ANYTHING,
        "isCancelled": st.booleans(),
        "originalStart": st.sampled_from(["0001-01-01T00:00:00+05:00", "9999-12-31T23:00:00-05:00"])
        | _ANYTHING,
        "originalStartTimeZone": _ZONES | _ANYTHING,
        "lastModifiedDateTime": _TIMES,
        "@removed": _ANYTHING,
    },
)


@given(st.lists(_EVENTS | _ANYTHING, max_size=4))
def test_whatever_a_page_holds_each_id_comes_once_and_has_its_place(items: list[Any]) -> None:
    read_page = page(*items)
    ids = [*(event.external_id for event in read_page.events), *read_page.removed]
    assert len(ids) == len(set(ids))
    for event in read_page.events:
        if event.start is not None and event.end is not None:
            assert event.start.earliest <= event.start.latest and event.end.earliest <= event.end.latest
        else:
            assert event.is_cancelled


# Trouble


@pytest.mark.parametrize(
    ("status", "code", "meant"),
    [
        (401, "InvalidAuthenticationToken", ErrorType.AUTHENTICATION_EXPIRED),
        (403, "ErrorAccessDenied", ErrorType.PERMISSION_MISSING),
        (403, "MailboxNotEnabledForRESTAPI", ErrorType.CALENDAR_NOT_FOUND),
        (404, "MailboxNotEnabledForRESTAPI", ErrorType.CALENDAR_NOT_FOUND),
        (404, "ErrorItemNotFound", ErrorType.CALENDAR_NOT_FOUND),
        (410, "syncStateNotFound", ErrorType.PROVIDER_UNAVAILABLE),
        (429, "ApplicationThrottled", ErrorType.RATE_LIMITED),
        (509, "BandwidthLimitExceeded", ErrorType.RATE_LIMITED),
        (500, "InternalServerError", ErrorType.PROVIDER_UNAVAILABLE),
        (503, "ServiceUnavailable", ErrorType.PROVIDER_UNAVAILABLE),
        (400, "ErrorInvalidParameter", ErrorType.INTERNAL),
    ],
)
def test_what_an_error_means(status: int, code: str, meant: ErrorType) -> None:
    trouble = GRAPH.trouble_in(refusal(status, code))
    assert (trouble.error_type, trouble.provider_code, trouble.calendar) == (meant, code, "Outlook Calendar")


@pytest.mark.parametrize("status", [429, 503])
def test_whoever_throttles_says_for_how_long(status: int) -> None:
    trouble = GRAPH.trouble_in(refusal(status, "TooManyRequests", retry_after="17"))
    assert (trouble.error_type, trouble.retry_after) == (ErrorType.RATE_LIMITED, 17)


@pytest.mark.parametrize(
    "body", [b"<html>", b'{"error": "x"}', b'{"error": {"code": "a b\\nc"}}', b'{"error": {"code": 7}}']
)
def test_an_error_without_a_code_is_named_after_its_status(body: bytes) -> None:
    assert GRAPH.trouble_in(answer(body, 502)).provider_code == "http_502"


@pytest.mark.parametrize("code", ["syncStateNotFound", "SyncStateInvalid", "RESYNCREQUIRED"])
def test_a_cursor_that_is_worth_nothing_wants_a_baseline(code: str) -> None:
    assert GRAPH.wants_baseline(refusal(400, code))
    assert GRAPH.wants_baseline(refusal(404, "ErrorItemNotFound", inner=code))
    assert GRAPH.wants_baseline(answer(b"", 410))
    assert not GRAPH.wants_baseline(refusal(500, code))
    assert not GRAPH.wants_baseline(refusal(400, "ErrorInvalidParameter"))
