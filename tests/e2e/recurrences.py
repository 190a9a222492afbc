"""Recurring events for another calendar server and ours to expand.

Where that server is known to be wrong, or refuses, the case says why, and what is right: each start as a clock on the wall shows
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

LOS_ANGELES = "America/Los_Angeles"
BERLIN = "Europe/Berlin"
LORD_HOWE = "Australia/Lord_Howe"

IGNORES = "it passes over "
EXACT = "RFC 5545 section 3.8.5.3: with DTEND an instance takes exactly as long as the first; it keeps the end on the wall"
UPPER = "it writes TZID in capitals, and answers 500 since no zone has such a name"
FIRST = "Google shows the start of a series even where the rule would not have it, and does not count it"


@dataclass(frozen=True, slots=True)
class Change:
    """The instance that was to begin at `of` begins at `start` and ends at `end` instead; neither: it is cancelled."""

    of: str
    start: str = ""
    end: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """`start` and `end` are read in `zone`, `since` and `until` begin where the server's calendar is. All-day events are dates."""

    name: str
    start: str
    end: str
    lines: tuple[str, ...]
    since: str
    until: str
    zone: str = LOS_ANGELES
    changes: tuple[Change, ...] = ()
    wrong: str = ""
    right: tuple[str, ...] = ()

    @property
    def is_all_day(self) -> bool:
        return len(self.start) == 10

    def at(self, text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(self.zone))


def _rule(rule: str, *more: str) -> tuple[str, ...]:
    return (f"RRULE:{rule}", *more)


_NINE = "2026-10-26T09:30", "2026-10-26T10:00"  # a Monday; the clocks go back on 1 November in the USA
_SPRING = "2026-03-02T09:30", "2026-03-02T10:00"  # and forward on 8 March
_AUTUMN_INTERVAL = "2026-10-20", "2026-11-20"
_SPRING_INTERVAL = "2026-03-01", "2026-04-10"
_YEARS = "2024-01-01", "2033-01-01"
_DAY = "2026-10-26", "2026-10-27"

CASES = [
    # Changes of the clock
    Case("daily across the autumn change in Los Angeles", *_NINE, _rule("FREQ=DAILY"), *_AUTUMN_INTERVAL),
    Case("daily across the spring change in Los Angeles", *_SPRING, _rule("FREQ=DAILY"), *_SPRING_INTERVAL),
    Case("weekly across the autumn change in Los Angeles", *_NINE, _rule("FREQ=WEEKLY"), "2026-10-01", "2027-04-01"),
    Case("weekly across both changes in Berlin", "2026-03-16T18:00", "2026-03-16T19:30", _rule("FREQ=WEEKLY;BYDAY=MO,WE,FR"), "2026-03-01", "2026-11-15", BERLIN),
    Case("daily across the spring change in Berlin", "2026-03-25T08:15", "2026-03-25T08:45", _rule("FREQ=DAILY;COUNT=10"), "2026-03-01", "2026-05-01", BERLIN),
    Case("daily across half an hour on Lord Howe Island, forward", "2026-09-30T09:00", "2026-09-30T10:00", _rule("FREQ=DAILY;COUNT=9"), "2026-09-01", "2026-11-01", LORD_HOWE),
    Case("daily across half an hour on Lord Howe Island, back", "2026-04-01T09:00", "2026-04-01T10:00", _rule("FREQ=DAILY;COUNT=9"), "2026-03-01", "2026-05-01", LORD_HOWE),
    Case("monthly over a year of changes in Berlin", "2026-01-31T23:30", "2026-01-31T23:59", _rule("FREQ=MONTHLY"), "2026-01-01", "2027-02-15", BERLIN),
    Case("just before the hour that comes twice", "2026-10-30T00:15", "2026-10-30T00:45", _rule("FREQ=DAILY"), "2026-10-29", "2026-11-05"),
    Case("just after the hour that is left out", "2026-03-27T03:00", "2026-03-27T03:30", _rule("FREQ=DAILY;COUNT=5"), "2026-03-20", "2026-04-10", BERLIN),
    Case("begun in summer and asked for in winter", "2026-06-01T22:00", "2026-06-01T23:00", _rule("FREQ=DAILY;INTERVAL=3"), "2026-12-01", "2027-01-01", BERLIN),
    Case("a zone without changes", "2026-10-23T09:00", "2026-10-23T10:00", _rule("FREQ=DAILY;COUNT=12"), "2026-10-01", "2026-12-01", "Asia/Kolkata"),
    Case("on the other side of the date line", "2026-10-26T07:00", "2026-10-26T08:00", _rule("FREQ=WEEKLY;BYDAY=MO"), *_AUTUMN_INTERVAL, "Pacific/Auckland"),
    Case("in the hour that is left out", "2026-03-28T02:30", "2026-03-28T03:00", _rule("FREQ=DAILY;COUNT=3"), "2026-03-01", "2026-05-01", BERLIN,
         wrong=EXACT, right=("2026-03-28T02:30", "2026-03-29T03:30", "2026-03-30T02:30")),
    Case("in the hour that comes twice", "2026-10-31T01:30", "2026-10-31T02:30", _rule("FREQ=DAILY;COUNT=3"), "2026-10-01", "2026-12-01",
         wrong=EXACT, right=("2026-10-31T01:30", "2026-11-01T01:30", "2026-11-02T01:30")),
    Case("a night in which the clock changes", "2026-10-30T22:00", "2026-10-31T06:00", _rule("FREQ=DAILY;COUNT=3"), "2026-10-01", "2026-12-01",
         wrong=EXACT, right=("2026-10-30T22:00", "2026-10-31T22:00", "2026-11-01T22:00")),
    Case("in the half hour that is left out", "2026-10-03T02:15", "2026-10-03T02:30", _rule("FREQ=DAILY;COUNT=3"), "2026-09-20", "2026-11-01", LORD_HOWE,
         wrong=EXACT, right=("2026-10-03T02:15", "2026-10-04T02:45", "2026-10-05T02:15")),
    # Rules
    Case("every other day", *_NINE, _rule("FREQ=DAILY;INTERVAL=2"), *_AUTUMN_INTERVAL),
    Case("every tenth day, five times", *_NINE, _rule("FREQ=DAILY;INTERVAL=10;COUNT=5"), "2026-10-01", "2027-02-01"),
    Case("on weekdays, day by day", *_NINE, _rule("FREQ=DAILY;BYDAY=MO,TU,WE,TH,FR"), *_AUTUMN_INTERVAL),
    Case("on weekdays, week by week", *_NINE, _rule("FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR;COUNT=30"), "2026-11-05", "2027-01-01"),
    Case("every other week", *_NINE, _rule("FREQ=WEEKLY;INTERVAL=2"), "2026-10-01", "2027-02-01"),
    Case("every other week on two days", *_NINE, _rule("FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,FR"), "2026-10-01", "2027-02-01"),
    Case("every other week that begins on Monday", "1997-08-05T09:00", "1997-08-05T10:00", _rule("FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=MO"), "1997-08-01", "1997-09-30"),
    Case("every other week that begins on Sunday", "1997-08-05T09:00", "1997-08-05T10:00", _rule("FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=SU"), "1997-08-01", "1997-09-30",
         wrong=IGNORES + "WKST; the example of RFC 5545 section 3.8.5.3", right=("1997-08-05T09:00", "1997-08-17T09:00", "1997-08-19T09:00", "1997-08-31T09:00")),
    Case("monthly on the 31st, where there is one", "2026-01-31T09:00", "2026-01-31T10:00", _rule("FREQ=MONTHLY"), "2026-01-01", "2027-01-01"),
    Case("every third month", "2026-01-15T09:00", "2026-01-15T10:00", _rule("FREQ=MONTHLY;INTERVAL=3"), "2026-01-01", "2028-01-01"),
    Case("on the last day of the month", "2026-01-31T09:00", "2026-01-31T10:00", _rule("FREQ=MONTHLY;BYMONTHDAY=-1"), "2026-01-01", "2028-04-01"),
    Case("on the 1st and the 15th", "2026-10-01T09:00", "2026-10-01T10:00", _rule("FREQ=MONTHLY;BYMONTHDAY=1,15;COUNT=9"), "2026-10-01", "2027-04-01"),
    Case("on the third day from the end", "2026-01-29T09:00", "2026-01-29T10:00", _rule("FREQ=MONTHLY;BYMONTHDAY=-3"), "2026-01-01", "2026-12-31"),
    Case("on the second Tuesday", "2026-10-13T09:00", "2026-10-13T10:00", _rule("FREQ=MONTHLY;BYDAY=2TU"), "2026-10-01", "2027-10-01"),
    Case("on the last Friday", "2026-10-30T09:00", "2026-10-30T10:00", _rule("FREQ=MONTHLY;BYDAY=-1FR"), "2026-10-01", "2027-10-01"),
    Case("on the fifth Monday, where there is one", "2026-03-30T09:00", "2026-03-30T10:00", _rule("FREQ=MONTHLY;BYDAY=5MO"), "2026-01-01", "2027-01-01"),
    Case("on the first and the third Wednesday", "2026-10-07T09:00", "2026-10-07T10:00", _rule("FREQ=MONTHLY;BYDAY=1WE,3WE;COUNT=8"), "2026-10-01", "2027-10-01"),
    Case("on every Thursday of the month", "2026-10-01T09:00", "2026-10-01T10:00", _rule("FREQ=MONTHLY;BYDAY=TH"), "2026-10-01", "2027-01-01"),
    Case("yearly", "2026-11-01T09:00", "2026-11-01T10:00", _rule("FREQ=YEARLY"), *_YEARS),
    Case("every other year, four times", "2024-03-10T09:00", "2024-03-10T10:00", _rule("FREQ=YEARLY;INTERVAL=2;COUNT=4"), *_YEARS),
    Case("on 29 February", "2024-02-29T09:00", "2024-02-29T10:00", _rule("FREQ=YEARLY"), *_YEARS),
    Case("yearly, with its month and day spelt out", "2026-07-04T09:00", "2026-07-04T10:00", _rule("FREQ=YEARLY;BYMONTH=7;BYMONTHDAY=4"), *_YEARS),
    Case("on the last weekday of the month", "2026-10-30T09:00", "2026-10-30T10:00", _rule("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1;COUNT=3"), "2026-10-01", "2027-10-01",
         wrong=IGNORES + "BYSETPOS", right=("2026-10-30T09:00", "2026-11-30T09:00", "2026-12-31T09:00")),
    Case("on the first weekend day", "2026-10-03T09:00", "2026-10-03T10:00", _rule("FREQ=MONTHLY;BYDAY=SA,SU;BYSETPOS=1;COUNT=4"), "2026-10-01", "2027-10-01",
         wrong=IGNORES + "BYSETPOS", right=("2026-10-03T09:00", "2026-11-01T09:00", "2026-12-05T09:00", "2027-01-02T09:00")),
    Case("every day of two Januaries", "1998-01-30T09:00", "1998-01-30T10:00", _rule("FREQ=DAILY;BYMONTH=1;COUNT=4"), "1998-01-01", "2000-01-01",
         wrong=IGNORES + "BYMONTH", right=("1998-01-30T09:00", "1998-01-31T09:00", "1999-01-01T09:00", "1999-01-02T09:00")),
    Case("on Thanksgiving", "2026-11-26T12:00", "2026-11-26T15:00", _rule("FREQ=YEARLY;BYMONTH=11;BYDAY=4TH;COUNT=3"), *_YEARS,
         wrong=IGNORES + "BYDAY in a year", right=("2026-11-26T12:00", "2027-11-25T12:00", "2028-11-23T12:00")),
    Case("on the twentieth Monday of the year", "1997-05-19T09:00", "1997-05-19T10:00", _rule("FREQ=YEARLY;BYDAY=20MO"), "1997-01-01", "2000-01-01",
         wrong="it answers 400 to an ordinal above 5", right=("1997-05-19T09:00", "1998-05-18T09:00", "1999-05-17T09:00")),
    Case("on Monday of the twentieth week", "1997-05-12T09:00", "1997-05-12T10:00", _rule("FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO"), "1997-01-01", "2000-01-01",
         wrong=IGNORES + "BYWEEKNO", right=("1997-05-12T09:00", "1998-05-11T09:00", "1999-05-17T09:00")),
    Case("on three days of every third year", "1997-01-01T09:00", "1997-01-01T10:00", _rule("FREQ=YEARLY;INTERVAL=3;COUNT=5;BYYEARDAY=1,100,200"), "1997-01-01", "2001-01-01",
         wrong=IGNORES + "BYYEARDAY", right=("1997-01-01T09:00", "1997-04-10T09:00", "1997-07-19T09:00", "2000-01-01T09:00", "2000-04-09T09:00")),
    Case("on the last day of the year, leap or not", "2026-12-31T09:00", "2026-12-31T10:00", _rule("FREQ=YEARLY;BYYEARDAY=-1"), *_YEARS),
    Case("on Friday the 13th", "1998-02-13T09:00", "1998-02-13T10:00", _rule("FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13"), "1998-01-01", "1999-09-01",
         wrong=IGNORES + "BYMONTHDAY beside BYDAY", right=("1998-02-13T09:00", "1998-03-13T09:00", "1998-11-13T09:00", "1999-08-13T09:00")),
    Case("on the day of American elections", "1996-11-05T09:00", "1996-11-05T10:00", _rule("FREQ=YEARLY;INTERVAL=4;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2,3,4,5,6,7,8"), "1996-01-01", "2005-01-01",
         wrong=IGNORES + "BYDAY in a year", right=("1996-11-05T09:00", "2000-11-07T09:00", "2004-11-02T09:00")),
    Case("twice a day", "2026-10-31T09:30", "2026-10-31T10:00", _rule("FREQ=DAILY;BYHOUR=9,17;COUNT=3"), "2026-10-01", "2026-12-01",
         wrong=IGNORES + "BYHOUR", right=("2026-10-31T09:30", "2026-10-31T17:30", "2026-11-01T09:30")),
    Case("from a day that the rule would not have", "2024-05-30T20:00", "2024-05-30T21:00", _rule("FREQ=WEEKLY;COUNT=3;BYDAY=WE"), "2024-05-01", "2025-01-01", BERLIN,
         wrong=FIRST, right=("2024-05-30T20:00", "2024-06-05T20:00", "2024-06-12T20:00", "2024-06-19T20:00")),
    Case("by two rules", "2026-10-26T09:30", "2026-10-26T10:00", _rule("FREQ=WEEKLY;COUNT=2", "RRULE:FREQ=MONTHLY;COUNT=2"), "2026-10-01", "2027-01-01",
         wrong="of several rules it takes the last", right=("2026-10-26T09:30", "2026-11-02T09:30", "2026-11-26T09:30")),
    # Ends
    Case("until an instant at which one begins", *_NINE, _rule("FREQ=DAILY;UNTIL=20261103T173000Z"), *_AUTUMN_INTERVAL),
    Case("until the second before one begins", *_NINE, _rule("FREQ=DAILY;UNTIL=20261103T172959Z"), *_AUTUMN_INTERVAL),
    Case("until a time on the wall", *_NINE, _rule("FREQ=DAILY;UNTIL=20261103T093000"), *_AUTUMN_INTERVAL),
    Case("until a date", *_NINE, _rule("FREQ=DAILY;UNTIL=20261103"), *_AUTUMN_INTERVAL),
    Case("until midnight by UTC, which is the evening before", "2026-10-26T20:00", "2026-10-26T21:00", _rule("FREQ=DAILY;UNTIL=20261103T000000Z"), *_AUTUMN_INTERVAL),
    Case("until before its start", *_NINE, _rule("FREQ=DAILY;UNTIL=20261001T000000Z"), *_AUTUMN_INTERVAL),
    Case("once", *_NINE, _rule("FREQ=DAILY;COUNT=1"), *_AUTUMN_INTERVAL),
    Case("counted from the start, asked for later", *_NINE, _rule("FREQ=DAILY;COUNT=20"), "2026-11-10", "2026-12-10"),
    Case("an interval that cuts through one at both ends", *_NINE, _rule("FREQ=DAILY"), "2026-11-02T09:45", "2026-11-06T09:45"),
    Case("an interval between an end and a start", *_NINE, _rule("FREQ=DAILY"), "2026-11-02T10:00", "2026-11-03T09:30"),
    # Dates left out, added
    Case("without one instance, by UTC", *_NINE, _rule("FREQ=DAILY;COUNT=9", "EXDATE:20261028T163000Z"), *_AUTUMN_INTERVAL),
    Case("without two, in a zone", *_NINE, _rule("FREQ=DAILY;COUNT=9", "EXDATE;TZID=America/Los_Angeles:20261101T093000,20261102T093000"), *_AUTUMN_INTERVAL,
         wrong=UPPER, right=("2026-10-26T09:30", "2026-10-27T09:30", "2026-10-28T09:30", "2026-10-29T09:30", "2026-10-30T09:30", "2026-10-31T09:30", "2026-11-03T09:30")),
    Case("without one, in another zone", *_NINE, _rule("FREQ=WEEKLY;COUNT=3", "EXDATE;TZID=Europe/Berlin:20261102T183000"), *_AUTUMN_INTERVAL,
         wrong=UPPER, right=("2026-10-26T09:30", "2026-11-09T09:30")),
    Case("without two, on the series' own clock", *_NINE, _rule("FREQ=DAILY;COUNT=9", "EXDATE:20261031T093000,20261101T093000"), *_AUTUMN_INTERVAL),
    Case("without one, in a zone whose name has no small letters", *_NINE, _rule("FREQ=DAILY;COUNT=9", "EXDATE;TZID=UTC:20261102T173000"), *_AUTUMN_INTERVAL),
    Case("on the first Monday of the year", "2026-01-05T09:00", "2026-01-05T10:00", _rule("FREQ=YEARLY;BYDAY=1MO;COUNT=3"), *_YEARS,
         wrong=IGNORES + "BYDAY in a year", right=("2026-01-05T09:00", "2027-01-04T09:00", "2028-01-03T09:00")),
    Case("without a whole date", *_NINE, _rule("FREQ=DAILY;COUNT=9", "EXDATE;VALUE=DATE:20261101"), *_AUTUMN_INTERVAL),
    Case("without its first", *_NINE, _rule("FREQ=DAILY;COUNT=5", "EXDATE:20261026T163000Z"), *_AUTUMN_INTERVAL),
    Case("without one that is not there", *_NINE, _rule("FREQ=DAILY;COUNT=5", "EXDATE:20261026T170000Z"), *_AUTUMN_INTERVAL),
    Case("with two dates more, in a zone", *_NINE, _rule("FREQ=WEEKLY;COUNT=2", "RDATE;TZID=Europe/Berlin:20261104T120000,20261105T120000"), *_AUTUMN_INTERVAL,
         wrong=IGNORES + "RDATE", right=("2026-10-26T09:30", "2026-11-02T09:30", "2026-11-04T03:00", "2026-11-05T03:00")),
    Case("without what another rule has", *_NINE, _rule("FREQ=DAILY;COUNT=4", "EXRULE:FREQ=DAILY;INTERVAL=2"), *_AUTUMN_INTERVAL,
         wrong=IGNORES + "EXRULE, which RFC 2445 had", right=("2026-10-27T09:30", "2026-10-29T09:30")),
    # Whole days
    Case("whole days across the change", *_DAY, _rule("FREQ=DAILY;COUNT=12"), *_AUTUMN_INTERVAL),
    Case("whole days on one day of the week", *_DAY, _rule("FREQ=WEEKLY"), "2026-10-01", "2027-04-15"),
    Case("three days each month", "2026-10-30", "2026-11-02", _rule("FREQ=MONTHLY;COUNT=6"), "2026-10-01", "2027-10-01"),
    Case("whole days on 29 February", "2024-02-29", "2024-03-01", _rule("FREQ=YEARLY"), *_YEARS),
    Case("whole days until a date", *_DAY, _rule("FREQ=DAILY;UNTIL=20261103"), *_AUTUMN_INTERVAL),
    Case("whole days without a date", *_DAY, _rule("FREQ=DAILY;COUNT=9", "EXDATE;VALUE=DATE:20261101"), *_AUTUMN_INTERVAL),
    Case("whole days with a date more", *_DAY, _rule("FREQ=WEEKLY;COUNT=2", "RDATE;VALUE=DATE:20261110"), *_AUTUMN_INTERVAL,
         wrong=IGNORES + "RDATE", right=("2026-10-26", "2026-11-02", "2026-11-10")),
    # Instances that were changed
    Case("one moved by hours", *_NINE, _rule("FREQ=DAILY;COUNT=5"), *_AUTUMN_INTERVAL, changes=(Change("2026-10-28T09:30", "2026-10-28T15:00", "2026-10-28T16:00"),)),
    Case("one moved across the change", *_NINE, _rule("FREQ=WEEKLY;COUNT=4"), *_AUTUMN_INTERVAL, changes=(Change("2026-11-02T09:30", "2026-10-31T09:30", "2026-10-31T10:00"),)),
    Case("one cancelled", *_NINE, _rule("FREQ=DAILY;COUNT=5"), *_AUTUMN_INTERVAL, changes=(Change("2026-10-28T09:30"),)),
    Case("one moved and one cancelled, in Berlin", "2026-10-22T09:00", "2026-10-22T10:00", _rule("FREQ=DAILY;COUNT=7"), *_AUTUMN_INTERVAL, BERLIN,
         changes=(Change("2026-10-25T09:00", "2026-10-24T19:00", "2026-10-24T20:00"), Change("2026-10-26T09:00"))),
    Case("one moved out of the interval", *_NINE, _rule("FREQ=DAILY;COUNT=5"), "2026-10-20", "2026-10-31", changes=(Change("2026-10-28T09:30", "2026-12-24T15:00", "2026-12-24T16:00"),)),
    Case("one moved into the interval", *_NINE, _rule("FREQ=DAILY;COUNT=30"), "2026-10-20", "2026-10-31", changes=(Change("2026-10-30T09:30", "2026-10-20T15:00", "2026-10-20T16:00"),)),
    Case("a whole day moved, and one cancelled", *_DAY, _rule("FREQ=DAILY;COUNT=9"), *_AUTUMN_INTERVAL,
         changes=(Change("2026-11-01", "2026-11-10", "2026-11-12"), Change("2026-10-30"))),
]  # fmt: skip
