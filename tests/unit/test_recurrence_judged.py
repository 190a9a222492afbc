"""The local times of rules, judged by python-dateutil: any rule, any start, any interval."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from dateutil.rrule import rrulestr
from hypothesis import given, settings
from hypothesis import strategies as st

from app.calendars.moments import Work
from app.calendars.rule import read_rule
from app.calendars.walk import starts

WEEKDAYS = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"]
# dateutil goes to the end of the year 9999 for a rule that has no date at all, so it is asked about the time just before.
FIRST = st.datetimes(datetime.fromisoformat("9960-01-01"), datetime.fromisoformat("9990-12-31")).map(
    lambda at: at.replace(microsecond=0)
)


def some(*values: Any) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=4, unique=True).map(
        lambda chosen: ",".join(map(str, chosen))
    )


@st.composite
def rules(draw: st.DrawFn) -> str:
    """Without what dateutil reads in another way: `test_recurrence` has that."""
    frequency = draw(st.sampled_from(["DAILY", "WEEKLY", "MONTHLY", "YEARLY"]))
    parts = {"FREQ": frequency, "WKST": draw(st.sampled_from(WEEKDAYS))}
    places: dict[str, st.SearchStrategy[str]] = {
        "INTERVAL": st.integers(1, 40).map(str),
        "COUNT": st.integers(1, 60).map(str),
        "BYMONTH": some(*range(1, 13)),
        "BYMONTHDAY": some(*range(1, 32), *range(-31, 0)),
        "BYHOUR": some(*range(24)),
        "BYMINUTE": some(*range(60)),
        "BYSECOND": some(*range(60)),
    }
    if frequency in {"MONTHLY", "YEARLY"}:
        # A plain weekday beside one with an ordinal is a day of either here, and has to be both there.
        most = 5 if frequency == "MONTHLY" else 53
        ordinals = [f"{n}{day}" for n in (*range(1, most + 1), *range(-most, 0)) for day in WEEKDAYS]
        places["BYDAY"] = st.one_of(some(*WEEKDAYS), some(*ordinals))
    else:
        places["BYDAY"] = some(*WEEKDAYS)
    if (
        frequency != "WEEKLY"
    ):  # there a first week that the series begins in the midst of has only its rest to pick from
        places["BYSETPOS"] = some(*range(1, 10), *range(-9, 0))
    if frequency == "YEARLY":
        places["BYYEARDAY"] = some(*range(1, 62), *range(363, 367), *range(-62, 0), *range(-366, -362))
    for name in draw(st.lists(st.sampled_from(sorted(places)), max_size=4, unique=True)):
        parts[name] = draw(places[name])
    if frequency == "YEARLY" and {"BYMONTH", "BYDAY"} <= parts.keys():
        ordinals = [f"{n}{day}" for n in (*range(1, 5), *range(-4, 0)) for day in WEEKDAYS]
        # dateutil breaks where a month has not as many.
        parts["BYDAY"] = draw(st.one_of(some(*WEEKDAYS), some(*ordinals)))
    if frequency == "YEARLY" and "BYDAY" not in parts and draw(st.booleans()):
        # Without a weekday it is the start's here, and every day of the week there.
        parts["BYWEEKNO"] = draw(some(*range(1, 54), *range(-53, 0)))
        parts["BYDAY"] = draw(some(*WEEKDAYS))
    return ";".join(f"{name}={value}" for name, value in parts.items())


@settings(max_examples=400)
@given(rules(), FIRST, st.integers(0, 2500), st.integers(0, 400))
def test_any_rule_stands_for_the_times_that_dateutil_has(
    text: str, first: datetime, after: int, days: int
) -> None:
    since = first + timedelta(days=after)
    until = min(since + timedelta(days=days), datetime.fromisoformat("9999-12-20"))
    found = list(starts(read_rule(text), first, since, until, Work(10_000_000)))
    judged = rrulestr(text, dtstart=first).between(since - timedelta(seconds=1), until)
    assert found == judged
