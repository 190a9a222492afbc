"""What recurring events come to: rules, dates, exclusions, exceptions, across changes of the clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.calendars.event import Boundary, Event, Kind
from app.calendars.moments import Work
from app.calendars.recurrence import MOST_WORK, Instance, ends_by, instances

LOS_ANGELES = "America/Los_Angeles"
BERLIN = "Europe/Berlin"
LORD_HOWE = "Australia/Lord_Howe"  # its clocks change by half an hour
RULES = [
    "FREQ=DAILY",
    "FREQ=DAILY;INTERVAL=5;BYHOUR=1,2,3",
    "FREQ=WEEKLY;INTERVAL=3;BYDAY=SU,WE;WKST=SU",
    "FREQ=WEEKLY;BYDAY=MO,TU,FR;BYSETPOS=-1;COUNT=70",
    "FREQ=MONTHLY;INTERVAL=2;BYMONTHDAY=1,-1",
    "FREQ=MONTHLY;BYDAY=-1SU,2MO;UNTIL=20251026T005959Z",
    "FREQ=YEARLY;BYWEEKNO=1,44,53;BYDAY=SU,MO",
]


def at(text: str, zone: str = LOS_ANGELES) -> Boundary:
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))
    return Boundary(at=local.astimezone(UTC), zone=zone)


def on(text: str) -> Boundary:
    return Boundary(date=date.fromisoformat(text))


def timed(start: str, *lines: str, zone: str = LOS_ANGELES, hours: float = 1) -> Event:
    begins = at(start, zone)
    assert begins.at is not None
    ends = replace(begins, at=begins.at + timedelta(hours=hours))
    return Event("master", Kind.SERIES, "confirmed", begins, ends, recurrence=lines)


def all_day(start: str, end: str, *lines: str) -> Event:
    return Event("master", Kind.SERIES, "confirmed", on(start), on(end), recurrence=lines)


def exception(
    original: str, start: Boundary | None, *, status: str = "confirmed", updated: int = 0, name: str = "one"
) -> Event:
    end = start and (
        replace(start, at=start.at + timedelta(hours=1))
        if start.at
        else Boundary(date=(start.date or date.min) + timedelta(1))
    )
    return Event(
        name,
        Kind.EXCEPTION,
        status,
        start,
        end,
        master_id="master",
        original_start=original,
        updated_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=updated),
    )


def between(
    series: Event,
    since: str,
    until: str,
    *exceptions: Event,
    zone: str = LOS_ANGELES,
    work: Work | None = None,
) -> list[Instance]:
    day_one, day_last = at(since + " 00:00", zone).at, at(until + " 00:00", zone).at
    assert day_one is not None
    assert day_last is not None
    return instances(series, exceptions, day_one, day_last, zone=ZoneInfo(zone), work=work)


def starts(found: Iterable[Instance], zone: str = LOS_ANGELES) -> list[str]:
    """As they are read on a wall in `zone`."""
    return [
        one.start.at.astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M")
        if one.start.at
        else str(one.start.date)
        for one in found
    ]


class TestChangesOfTheClock:
    def test_the_time_on_the_wall_is_kept(self) -> None:
        found = between(timed("2026-10-30 09:30", "RRULE:FREQ=DAILY"), "2026-10-31", "2026-11-03")
        assert starts(found) == ["10-31 09:30", "11-01 09:30", "11-02 09:30"]
        assert [one.id for one in found] == [
            "master_20261031T163000Z",
            "master_20261101T173000Z",
            "master_20261102T173000Z",
        ]
        assert found[0].original_start == "2026-10-31T16:30:00Z"

    def test_a_time_that_the_clock_leaves_out_is_as_much_later(self) -> None:
        found = between(
            timed("2026-03-28 02:30", "RRULE:FREQ=DAILY", zone=BERLIN),
            "2026-03-28",
            "2026-03-31",
            zone=BERLIN,
        )
        assert starts(found, BERLIN) == ["03-28 02:30", "03-29 03:30", "03-30 02:30"]

    def test_of_a_time_that_comes_twice_it_is_the_first(self) -> None:
        found = between(timed("2026-10-31 01:30", "RRULE:FREQ=DAILY"), "2026-11-01", "2026-11-02")
        assert [one.original_start for one in found] == ["2026-11-01T08:30:00Z"]

    def test_a_series_that_begins_at_the_second_of_both_begins_there_once(self) -> None:
        begins = Boundary(at=datetime(2026, 11, 1, 9, 30, tzinfo=UTC), zone=LOS_ANGELES)
        series = replace(
            timed("2026-11-01 01:30", "RRULE:FREQ=DAILY"), start=begins, end=replace(begins, at=begins.latest)
        )
        assert [one.original_start for one in between(series, "2026-11-01", "2026-11-03")] == [
            "2026-11-01T09:30:00Z",
            "2026-11-02T09:30:00Z",
        ]

    def test_an_instance_takes_exactly_as_long_as_the_first_one(self) -> None:
        night = timed("2026-10-30 22:00", "RRULE:FREQ=DAILY", hours=10)
        found = between(night, "2026-10-31", "2026-11-01")[-1]
        assert found.end.at == at("2026-11-01 07:00").at  # the hour came twice

    def test_half_hours_count_too(self) -> None:
        series = timed("2026-10-02 02:15", "RRULE:FREQ=DAILY", zone=LORD_HOWE)
        found = between(series, "2026-10-03", "2026-10-06", zone=LORD_HOWE)
        assert starts(found, LORD_HOWE) == ["10-03 02:15", "10-04 02:45", "10-05 02:15"]

    def test_dates_know_no_clock(self) -> None:
        found = between(
            all_day("2026-10-30", "2026-11-01", "RRULE:FREQ=DAILY;COUNT=3"), "2026-10-25", "2026-11-10"
        )
        assert [(str(one.start.date), str(one.end.date), one.id) for one in found] == [
            ("2026-10-30", "2026-11-01", "master_20261030"),
            ("2026-10-31", "2026-11-02", "master_20261031"),
            ("2026-11-01", "2026-11-03", "master_20261101"),
        ]

    def test_an_unknown_zone_is_read_as_utc(self) -> None:
        series = timed("2026-10-31 09:30", "RRULE:FREQ=DAILY;COUNT=2", zone="UTC")
        assert series.start is not None
        for name in ("Nowhere/Land", "../etc/passwd", "America", "Pacific Standard Time", "", None):
            elsewhere = replace(series, start=replace(series.start, zone=name))
            found = between(elsewhere, "2026-10-30", "2026-11-05")
            assert starts(found, "UTC") == ["10-31 09:30", "11-01 09:30"]


class TestWhenItEnds:
    @pytest.mark.parametrize(
        ("until", "last"),
        [
            ("20261104T173000Z", "11-04"),  # at that very instant
            ("20261104T172959Z", "11-03"),
            ("20261104T093000", "11-04"),  # on the series' own clock
            ("20261104T092959", "11-03"),
            ("20261104", "11-04"),  # that day still
        ],
    )
    def test_until_admits_its_own_moment(self, until: str, last: str) -> None:
        series = timed("2026-10-30 09:30", f"RRULE:FREQ=DAILY;UNTIL={until}")
        found = between(series, "2026-10-01", "2026-12-01")
        assert starts(found)[-1] == f"{last} 09:30"
        end = ends_by(series)
        assert end is not None
        assert found[-1].end.latest <= end < found[-1].end.latest + timedelta(days=1)

    @pytest.mark.parametrize("until", ["20261104", "20261104T000000Z", "20261104T235959"])
    def test_until_admits_its_own_date(self, until: str) -> None:
        series = all_day("2026-11-01", "2026-11-02", f"RRULE:FREQ=DAILY;UNTIL={until}")
        assert starts(between(series, "2026-10-01", "2026-12-01"))[-1] == "2026-11-04"
        assert ends_by(series) == datetime(2026, 11, 5, 14, tzinfo=UTC)

    def test_count_counts_from_the_start_wherever_one_looks(self) -> None:
        series = timed("2026-01-01 09:30", "RRULE:FREQ=WEEKLY;BYDAY=TH,SA;COUNT=5")
        assert starts(between(series, "2026-01-10", "2027-01-01")) == ["01-10 09:30", "01-15 09:30"]
        assert ends_by(series) == at("2026-01-15 10:30").at

    def test_a_series_cut_off_before_its_start_is_nowhere(self) -> None:
        series = timed("2026-10-30 09:30", "RRULE:FREQ=DAILY;UNTIL=20261029T235959Z")
        assert between(series, "2026-01-01", "2027-01-01") == []

    @pytest.mark.parametrize(
        "line",
        [
            "RRULE:FREQ=DAILY",
            "RRULE:FREQ=DAILY;COUNT=999999999",
            "RRULE:FREQ=DAILY;COUNT=3;BYMONTH=2;BYMONTHDAY=30",
            "RRULE:FREQ=NEVER",
        ],
    )
    def test_where_the_end_is_not_known_there_is_none(self, line: str) -> None:
        assert ends_by(timed("2026-10-30 09:30", line)) is None

    def test_dates_and_several_rules_are_part_of_the_end(self) -> None:
        rules = ("RRULE:FREQ=DAILY;COUNT=2", "RRULE:FREQ=WEEKLY;UNTIL=20261115T000000Z")
        assert ends_by(timed("2026-10-30 09:30", *rules)) == datetime(2026, 11, 15, 1, tzinfo=UTC)
        later = timed("2026-10-30 09:30", *rules, "RDATE;TZID=Europe/Berlin:20271231T120000")
        assert ends_by(later) == at("2027-12-31 13:00", BERLIN).at
        assert ends_by(timed("2026-10-30 09:30")) == at("2026-10-30 10:30").at


class TestRules:
    @pytest.mark.parametrize(
        ("start", "rule", "found"),
        [
            ("2024-02-29", "FREQ=YEARLY", ["2024-02-29", "2028-02-29"]),
            ("2024-02-29", "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=-1;COUNT=3", ["2024-02-29", "2025-02-28", "2026-02-28"]),
            ("2026-01-31", "FREQ=MONTHLY;COUNT=3", ["2026-01-31", "2026-03-31", "2026-05-31"]),
            ("2026-01-30", "FREQ=MONTHLY;BYDAY=-1FR;COUNT=3", ["2026-01-30", "2026-02-27", "2026-03-27"]),
            ("2026-01-30", "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1;COUNT=2", ["2026-01-30", "2026-02-27"]),
            ("2026-11-03", "FREQ=YEARLY;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2,3,4,5,6,7,8;COUNT=2", ["2026-11-03", "2027-11-02"]),
            ("2026-05-18", "FREQ=YEARLY;BYDAY=20MO;COUNT=2", ["2026-05-18", "2027-05-17"]),
            ("2026-05-11", "FREQ=YEARLY;BYWEEKNO=20;COUNT=2", ["2026-05-11", "2027-05-17"]),
            ("2026-12-31", "FREQ=YEARLY;BYYEARDAY=-1;COUNT=2", ["2026-12-31", "2027-12-31"]),
            ("2026-08-04", "FREQ=WEEKLY;INTERVAL=2;BYDAY=TU,SU;WKST=MO;COUNT=4", ["2026-08-04", "2026-08-09", "2026-08-18", "2026-08-23"]),
            ("2026-08-04", "FREQ=WEEKLY;INTERVAL=2;BYDAY=TU,SU;WKST=SU;COUNT=4", ["2026-08-04", "2026-08-16", "2026-08-18", "2026-08-30"]),
            ("2026-01-01", "FREQ=DAILY;BYMONTH=1;BYDAY=TH;COUNT=2", ["2026-01-01", "2026-01-08"]),
            ("2026-02-28", "FREQ=MONTHLY;BYMONTHDAY=-1,15;COUNT=3", ["2026-02-28", "2026-03-15", "2026-03-31"]),
        ],
    )  # fmt: skip
    def test_rules_read_as_rfc_5545_has_them(self, start: str, rule: str, found: list[str]) -> None:
        day_after = str(date.fromisoformat(start) + timedelta(1))
        series = all_day(start, day_after, f"RRULE:{rule}")
        assert starts(between(series, "2024-01-01", "2030-01-01"))[: len(found)] == found

    def test_a_day_may_have_several_times(self) -> None:
        series = timed("2026-11-02 09:30", "RRULE:FREQ=DAILY;BYHOUR=9,17;BYMINUTE=0,30;COUNT=4")
        assert starts(between(series, "2026-11-01", "2026-11-10")) == [
            "11-02 09:30",
            "11-02 17:00",
            "11-02 17:30",
            "11-03 09:00",
        ]

    def test_the_start_is_shown_where_the_rule_would_not_have_it_and_not_counted(self) -> None:
        series = timed("2024-05-30 20:00", "RRULE:FREQ=WEEKLY;COUNT=3;BYDAY=WE", zone=BERLIN)  # a Thursday
        found = between(series, "2024-05-01", "2025-01-01", zone=BERLIN)
        assert starts(found, BERLIN) == ["05-30 20:00", "06-05 20:00", "06-12 20:00", "06-19 20:00"]

    def test_two_rules_make_one_series_without_doubles(self) -> None:
        series = timed(
            "2026-11-02 09:30", "RRULE:FREQ=WEEKLY;BYDAY=MO", "RRULE:FREQ=DAILY;INTERVAL=7;COUNT=1"
        )
        assert starts(between(series, "2026-11-01", "2026-11-12")) == ["11-02 09:30", "11-09 09:30"]


class TestDates:
    def test_dates_are_added_and_taken_away_in_every_form(self) -> None:
        series = timed(
            "2026-11-02 09:30",
            "RRULE:FREQ=DAILY;COUNT=9",
            "RDATE;TZID=Europe/Berlin:20261120T120000,20261121T120000",
            "RDATE:20261122T200000",
            "RDATE;VALUE=DATE:20261123",
            "EXDATE;TZID=America/Los_Angeles:20261103T093000,20261104T093000",
            "EXDATE:20261105T173000Z",
            "EXDATE:20261106T093000",
            "EXDATE;VALUE=DATE:20261107",
            'EXDATE;TZID="Europe/Berlin":20261108T183000',
            "EXRULE:FREQ=DAILY;INTERVAL=7",
        )
        assert starts(between(series, "2026-11-01", "2026-12-01")) == [
            "11-10 09:30",
            "11-20 03:00",
            "11-21 03:00",
            "11-22 20:00",
        ]  # the 2nd, 9th and 23rd fell to EXRULE

    def test_all_day_dates_are_read_as_they_are_written(self) -> None:
        series = all_day(
            "2026-11-02",
            "2026-11-03",
            "RDATE;VALUE=DATE:20261110,20261112",
            "EXDATE;TZID=America/Los_Angeles:20261112T000000",
        )
        assert starts(between(series, "2026-11-01", "2026-12-01")) == ["2026-11-02", "2026-11-10"]

    def test_a_date_takes_away_all_of_its_day(self) -> None:
        series = timed(
            "2026-11-02 09:30", "RRULE:FREQ=DAILY;BYHOUR=9,17,23;COUNT=9", "EXDATE;VALUE=DATE:20261103"
        )
        found = starts(between(series, "2026-11-01", "2026-12-01"))
        assert [one[:5] for one in found] == ["11-02"] * 3 + ["11-04"] * 3

    def test_the_start_itself_can_be_taken_away(self) -> None:
        series = timed("2026-11-02 09:30", "RRULE:FREQ=DAILY;COUNT=2", "EXDATE:20261102T173000Z")
        assert starts(between(series, "2026-11-01", "2026-12-01")) == ["11-03 09:30"]


class TestIntervals:
    def test_an_instance_that_reaches_into_the_interval_is_in_it(self) -> None:
        series = timed("2026-01-01 20:00", "RRULE:FREQ=WEEKLY", hours=24 * 6)
        assert starts(between(series, "2026-02-10", "2026-02-11")) == ["02-05 20:00"]

    def test_ends_and_beginnings_do_not_touch(self) -> None:
        series = timed("2026-01-01 00:00", "RRULE:FREQ=DAILY", hours=24)
        assert starts(between(series, "2026-02-10", "2026-02-11")) == ["02-10 00:00"]

    def test_an_event_without_length_lies_where_it_begins(self) -> None:
        series = timed("2026-01-01 00:00", "RRULE:FREQ=DAILY", hours=0)
        assert starts(between(series, "2026-02-10", "2026-02-11")) == ["02-10 00:00"]

    def test_dates_are_those_of_the_calendars_zone(self) -> None:
        series = all_day("2026-01-01", "2026-01-02", "RRULE:FREQ=DAILY")
        for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago", LOS_ANGELES):
            assert starts(between(series, "2026-02-10", "2026-02-11", zone=zone)) == ["2026-02-10"]

    @given(
        st.sampled_from(RULES),
        st.sampled_from([LOS_ANGELES, BERLIN, LORD_HOWE]),
        st.integers(0, 400 * 96),
        st.sampled_from([0, 0.5, 3, 30, 24 * 9]),
        st.integers(0, 800 * 96),
        st.integers(0, 90 * 96),
    )
    def test_any_interval_has_what_all_time_has_there(
        self, rule: str, zone: str, begins: int, hours: float, since: int, span: int
    ) -> None:
        quarter = timedelta(minutes=15)
        origin = datetime(2024, 1, 1, tzinfo=UTC)
        at = origin + begins * quarter
        ends = at + timedelta(hours=hours)
        lines = (f"RRULE:{rule}", "RRULE:FREQ=YEARLY", "EXDATE;VALUE=DATE:20240501")
        first, last = Boundary(at=at, zone=zone), Boundary(at=ends, zone=zone)
        series = Event("master", Kind.SERIES, "confirmed", first, last, recurrence=lines)
        asked = origin + since * quarter, origin + (since + span) * quarter
        always = instances(series, (), origin, origin + timedelta(days=1000), zone=UTC)
        assert instances(series, (), *asked, zone=UTC) == [one for one in always if one.overlaps(*asked, UTC)]

    def test_a_series_of_long_ago_costs_as_little_as_a_new_one(self) -> None:
        work = Work(1_000)
        found = between(timed("1926-11-23 09:30", "RRULE:FREQ=DAILY"), "2026-11-01", "2026-12-01", work=work)
        assert len(found) == 30


class TestExceptions:
    SERIES = timed("2026-11-02 09:30", "RRULE:FREQ=WEEKLY")
    SECOND = "2026-11-09T17:30:00Z"

    def test_a_moved_instance_is_only_where_it_was_moved_to(self) -> None:
        moved = exception(self.SECOND, at("2026-11-11 14:00"))
        found = between(self.SERIES, "2026-11-08", "2026-11-18", moved)
        assert starts(found) == ["11-11 14:00", "11-16 09:30"]
        assert (found[0].id, found[0].event, found[0].series_id) == ("one", moved, "master")
        assert found[0].original_start == self.SECOND

    def test_one_may_be_moved_into_the_interval_or_out_of_it(self) -> None:
        moved = exception(self.SECOND, at("2027-05-05 14:00"))
        assert starts(between(self.SERIES, "2026-11-08", "2026-11-15", moved)) == []
        assert starts(between(self.SERIES, "2027-05-04", "2027-05-09", moved)) == ["05-05 14:00"]

    def test_a_cancelled_instance_is_nowhere(self) -> None:
        cancelled = exception(self.SECOND, None, status="cancelled")
        assert starts(between(self.SERIES, "2026-11-08", "2026-11-17", cancelled)) == ["11-16 09:30"]

    def test_one_in_place_of_nothing_is_shown_unless_it_is_cancelled(self) -> None:
        stray = exception("2026-11-10T17:30:00Z", at("2026-11-10 09:30"))
        assert len(between(self.SERIES, "2026-11-08", "2026-11-15", stray)) == 2
        assert len(between(self.SERIES, "2026-11-08", "2026-11-15", replace(stray, status="cancelled"))) == 1

    @pytest.mark.parametrize("order", [1, -1])
    def test_of_two_in_one_place_the_one_updated_last_counts(self, order: int) -> None:
        both = [
            exception(self.SECOND, at("2026-11-11 14:00"), updated=1, name="older"),
            exception(self.SECOND, at("2026-11-12 14:00"), updated=2, name="newer"),
        ][::order]
        found = between(self.SERIES, "2026-11-08", "2026-11-15", *both)
        assert [one.id for one in found] == ["newer"]

    def test_an_all_day_instance_is_known_by_its_date(self) -> None:
        series = all_day("2026-11-02", "2026-11-03", "RRULE:FREQ=DAILY;COUNT=3")
        moved = exception("2026-11-03", on("2026-11-20"))
        assert starts(between(series, "2026-11-01", "2026-12-01", moved)) == [
            "2026-11-02",
            "2026-11-04",
            "2026-11-20",
        ]

    def test_nothing_is_left_of_a_cancelled_series(self) -> None:
        gone = replace(self.SERIES, status="cancelled")
        assert between(gone, "2026-11-01", "2026-12-01", exception(self.SECOND, at("2026-11-11 14:00"))) == []


class TestWhatCannotBeRead:
    @pytest.mark.parametrize(
        "line",
        [
            "RRULE:FREQ=SECONDLY",
            "RRULE:FREQ=HOURLY;INTERVAL=4",
            "RRULE:FREQ=DAILY;INTERVAL=0",
            "RRULE:FREQ=DAILY;INTERVAL=-1",
            "RRULE:FREQ=DAILY;COUNT=0",
            "RRULE:FREQ=DAILY;COUNT=1;UNTIL=20270101",
            "RRULE:FREQ=DAILY;UNTIL=tomorrow",
            "RRULE:FREQ=DAILY;UNTIL=20270230",
            "RRULE:FREQ=DAILY;BYEASTER=1",
            "RRULE:FREQ=DAILY;FREQ=WEEKLY",
            "RRULE:FREQ=MONTHLY;BYMONTHDAY=0",
            "RRULE:FREQ=MONTHLY;BYMONTHDAY=32",
            "RRULE:FREQ=MONTHLY;BYMONTHDAY=",
            "RRULE:FREQ=MONTHLY;BYDAY=0MO",
            "RRULE:FREQ=MONTHLY;BYDAY=MO,",
            "RRULE:FREQ=MONTHLY;BYMONTH=٣",
            "RRULE:FREQ=DAILY;WKST=XX",
            "RRULE:INTERVAL=2",
            "RRULE:",
            "RRULE",
            "",
            "DTSTART:20260101T000000Z",
            "RDATE;VALUE=PERIOD:20261103T000000Z/PT1H",
            "EXDATE:20261340",
        ],
    )
    def test_the_series_is_shown_once_and_says_so(self, line: str) -> None:
        found = between(timed("2026-11-02 09:30", line), "2026-01-01", "2027-01-01")
        assert starts(found) == ["11-02 09:30"]
        assert found[0].unread == (line,)

    def test_what_can_be_read_of_the_rest_counts(self) -> None:
        series = timed("2026-11-02 09:30", "RRULE:FREQ=DAILY;COUNT=2", "RDATE:nonsense")
        assert [one.unread for one in between(series, "2026-11-01", "2026-12-01")] == [
            ("RDATE:nonsense",)
        ] * 2

    @pytest.mark.parametrize(
        "rule",
        [
            "FREQ=DAILY;COUNT=999999999;BYMONTH=2;BYMONTHDAY=30",
            "FREQ=YEARLY;COUNT=999999999;BYDAY=53MO;BYMONTHDAY=3",
            "FREQ=DAILY;BYHOUR="
            + ",".join(map(str, range(24)))
            + ";BYMINUTE="
            + ",".join(map(str, range(60))),
        ],
    )
    def test_what_would_never_end_is_given_up(self, rule: str) -> None:
        work = Work(MOST_WORK)
        series = timed("1600-11-02 09:30", f"RRULE:{rule}")
        since, until = datetime(1600, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
        found = instances(series, (), since, until, work=work)
        assert [one.original_start for one in found] == ["1600-11-02T17:22:58Z"]
        assert found[0].unread == series.recurrence
        assert work.left > -5_000  # it stopped soon after

    def test_a_rule_without_any_date_ends_with_the_interval(self) -> None:
        work = Work(MOST_WORK)
        series = timed("1996-11-23 09:30", "RRULE:FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30")
        assert between(series, "2026-01-01", "2026-12-31", work=work) == []
        assert work.left > MOST_WORK - 400

    @pytest.mark.parametrize("start", ["0001-01-05 00:00", "9999-12-28 00:00"])
    def test_the_ends_of_all_time_are_no_trouble(self, start: str) -> None:
        for frequency in ("DAILY", "WEEKLY;BYDAY=MO", "MONTHLY", "YEARLY;BYWEEKNO=1,52,53"):
            series = timed(start, f"RRULE:FREQ={frequency}", zone="UTC", hours=12)
            since, until = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
            assert instances(series, (), since, since + timedelta(days=30)) is not None
            assert instances(series, (), until - timedelta(days=30), until) is not None
            assert ends_by(series) is None

    def test_an_end_of_another_sort_than_the_start_is_none(self) -> None:
        mixed = replace(timed("2026-11-02 09:30", "RRULE:FREQ=DAILY;COUNT=2"), end=on("2026-11-09"))
        assert [one.end.at == one.start.at for one in between(mixed, "2026-11-01", "2026-12-01")] == [
            True
        ] * 2
        mixed = replace(
            all_day("2026-11-02", "2026-11-03", "RRULE:FREQ=DAILY;COUNT=2"), end=at("2026-11-09 12:00")
        )
        found = between(mixed, "2026-11-01", "2026-12-01")
        assert [str(one.end.date) for one in found] == ["2026-11-03", "2026-11-04"]

    def test_too_many_dates_are_too_much_work(self) -> None:
        line = "EXDATE:" + ",".join(["20261103T173000Z"] * (MOST_WORK + 1))
        series = timed("2026-11-02 09:30", "RRULE:FREQ=DAILY", line)
        found = between(series, "2026-11-01", "2026-12-01")
        assert starts(found) == ["11-02 09:30"]
        assert found[0].unread == series.recurrence
