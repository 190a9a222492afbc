"""The local times that a rule stands for (RFC 5545 section 3.3.10). Pure.

A rule is gone through period by period (a day, a week, a month, a year): the days of the period that its parts allow, times the
times of the day, of which BYSETPOS picks some. Where nothing is counted, going begins at the period asked for, however long ago
the series began.
"""

from __future__ import annotations

from calendar import isleap, monthrange
from collections.abc import Iterator
from datetime import MAXYEAR, date, datetime, time, timedelta
from itertools import product

from app.calendars.moments import Work
from app.calendars.rule import Frequency, Rule

END_OF_TIME = datetime(MAXYEAR, 12, 31)  # noqa: DTZ001 - a local time
_WORK_OF_AN_INSTANCE = 3  # beside having been looked at


def starts(rule: Rule, first: datetime, since: datetime, until: datetime, work: Work) -> Iterator[datetime]:
    """In order, from `since` on and before `until`, none before `first`; all of them local times. UNTIL is not looked at,
    since it may be an instant. Raises Unreadable where it would take more than `work` allows."""
    walk = _Walk(rule, first)
    left = -1 if rule.count is None else rule.count
    for period in walk.periods(since if rule.count is None else first, until):
        days = walk.days(period)
        chosen = walk.chosen(days)
        work.spend(len(days) + len(chosen))
        for start in chosen:
            if start < first:
                continue
            if left == 0 or start >= until:
                return
            left -= 1
            if start >= since:
                work.spend(_WORK_OF_AN_INSTANCE)
                yield start


class _Walk:
    """A rule with what it takes from where its series begins."""

    def __init__(self, rule: Rule, first: datetime) -> None:
        self._rule = rule
        self._first = first
        self._months, self._month_days, self._weekdays = _completed(rule, first)
        self._times = [
            time(*parts)
            for parts in product(
                sorted(rule.hours or {first.hour}),
                sorted(rule.minutes or {first.minute}),
                sorted(rule.seconds or {first.second}),
            )
        ]
        self._ordinals_of_year = rule.frequency is Frequency.YEARLY and not rule.months
        self._has_ordinals = rule.frequency in {Frequency.MONTHLY, Frequency.YEARLY}
        self._every = frozenset(  # RFC 5545 has no ordinals elsewhere: they are passed over
            weekday for ordinal, weekday in self._weekdays if ordinal == 0 or not self._has_ordinals
        )

    def periods(self, since: datetime, until: datetime) -> Iterator[date]:
        """The first days of the periods from about `since` until `until`."""
        skipped = max(0, self._distance(max(since, self._first)) // self._rule.interval - 1)
        while True:
            period = self._period(skipped * self._rule.interval)
            if period is None or datetime.combine(period, time()) >= until:
                return
            yield period
            skipped += 1

    def _distance(self, moment: datetime) -> int:
        """In periods from the first one."""
        first = self._first
        if self._rule.frequency is Frequency.YEARLY:
            return moment.year - first.year
        if self._rule.frequency is Frequency.MONTHLY:
            return (moment.year - first.year) * 12 + moment.month - first.month
        days = moment.toordinal() - first.toordinal()
        return days if self._rule.frequency is Frequency.DAILY else days // 7

    def _period(self, number: int) -> date | None:
        """The first day of the one that many periods after the first; None beyond the end of all dates."""
        first = self._first
        if self._rule.frequency is Frequency.YEARLY:
            return date(first.year + number, 1, 1) if first.year + number <= MAXYEAR else None
        if self._rule.frequency is Frequency.MONTHLY:
            year, month = divmod(first.year * 12 + first.month - 1 + number, 12)
            return date(year, month + 1, 1) if year <= MAXYEAR else None
        ordinal = first.toordinal() + number
        if self._rule.frequency is Frequency.WEEKLY:
            ordinal = first.toordinal() - (first.weekday() - self._rule.week_start) % 7 + 7 * number
        if ordinal > date.max.toordinal() - 6:
            return None
        return date.fromordinal(max(ordinal, 1))

    def days(self, period: date) -> list[date]:
        """Those looked at."""
        if self._rule.frequency is Frequency.DAILY:
            return [period]
        if self._rule.frequency is Frequency.WEEKLY:
            return [period + timedelta(days) for days in range(7)]
        if self._rule.frequency is Frequency.MONTHLY:
            return _month(period.year, period.month)
        months = sorted(self._months or range(1, 13))
        return [day for month in months for day in _month(period.year, month)]

    def chosen(self, days: list[date]) -> list[datetime]:
        """The starts of a period, in order."""
        starts = [
            datetime.combine(day, moment) for day in days if self._allows(day) for moment in self._times
        ]
        positions = self._rule.positions
        if not positions:
            return starts
        size = len(starts)
        return [
            start
            for position, start in enumerate(starts)
            if position + 1 in positions or position - size in positions
        ]

    def _allows(self, day: date) -> bool:
        rule = self._rule
        if self._months and day.month not in self._months:
            return False
        if self._month_days and not _counts(day.day, _days_in_month(day), self._month_days):
            return False
        if rule.year_days and not _counts(_day_of_year(day), _days_in_year(day), rule.year_days):
            return False
        if rule.weeks and not _counts(*_week(day, rule.week_start), rule.weeks):
            return False
        return not self._weekdays or self._is_named(day)

    def _is_named(self, day: date) -> bool:
        weekday = day.weekday()
        if weekday in self._every or not self._has_ordinals:
            return weekday in self._every
        place, size = day.day, _days_in_month(day)
        if self._ordinals_of_year:
            place, size = _day_of_year(day), _days_in_year(day)
        forth, back = (place - 1) // 7 + 1, -((size - place) // 7 + 1)
        return (forth, weekday) in self._weekdays or (back, weekday) in self._weekdays


def _completed(
    rule: Rule, first: datetime
) -> tuple[frozenset[int], frozenset[int], frozenset[tuple[int, int]]]:
    """Months, days of the month and weekdays: what the rule does not say is as in the series' start (RFC 5545 section 3.3.10)."""
    months, month_days, weekdays = rule.months, rule.month_days, rule.weekdays
    if month_days or weekdays or rule.year_days:
        return months, month_days, weekdays
    if rule.weeks or rule.frequency is Frequency.WEEKLY:
        return months, month_days, frozenset({(0, first.weekday())})
    if rule.frequency is Frequency.DAILY:
        return months, month_days, weekdays
    if rule.frequency is Frequency.YEARLY and not months:
        months = frozenset({first.month})
    return months, frozenset({first.day}), weekdays


def _counts(place: int, size: int, wanted: frozenset[int]) -> bool:
    """Whether the one at `place` of `size` is wanted, counted from the beginning or, below 0, from the end."""
    return place in wanted or place - size - 1 in wanted


def _month(year: int, month: int) -> list[date]:
    return [date(year, month, day) for day in range(1, monthrange(year, month)[1] + 1)]


def _days_in_month(day: date) -> int:
    return monthrange(day.year, day.month)[1]


def _day_of_year(day: date) -> int:
    return day.timetuple().tm_yday


def _days_in_year(day: date) -> int:
    return 366 if isleap(day.year) else 365


def _week(day: date, week_start: int) -> tuple[int, int]:
    """The number of its week, and how many its year has. The first one has at least 4 days in the year (RFC 5545 section
    3.3.10), so that the 4th January is in it."""
    year = (day + timedelta(3 - (day.weekday() - week_start) % 7)).year  # that of the week's middle
    begins, ends = _first_week(year, week_start), _first_week(year + 1, week_start)
    return (day.toordinal() - begins) // 7 + 1, (ends - begins) // 7


def _first_week(year: int, week_start: int) -> int:
    fourth = date(year, 1, 1).toordinal() + 3
    return fourth - (fourth - 1 - week_start) % 7
