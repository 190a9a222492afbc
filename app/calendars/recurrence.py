"""`instances`: what a recurring event comes to between two times. Pure.

    lines of RFC 5545 -> the series' own start + RRULE + RDATE - EXDATE - EXRULE -> its exceptions in their places

Times of the day are kept across changes of the clock, and an instance takes exactly as long as the series' first one does
(RFC 5545 section 3.8.5.3), or as many dates. The series' own start is one of them even where its rule would not have it, as at
Google; RFC 5545 leaves that open.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, tzinfo

from app.calendars.event import Boundary, Event
from app.calendars.moments import Unreadable, Value, Work, instant
from app.calendars.recurrence_lines import Lines, read_lines
from app.calendars.rule import Rule
from app.calendars.times import Times, times_of
from app.calendars.walk import END_OF_TIME, starts

MOST_WORK = 50_000  # for a series: some 70 years of a daily one that has a COUNT
_MOST_WORK_FOR_AN_END = 5_000  # some 1,000 days, or 450 weeks
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Instance:
    """An event at one of its times. `event` is what describes it: the exception in its place, or the series.

    `unread` are lines of the series that are not understood, or would take too much work: there may be other instances
    than those shown.
    """

    id: str
    event: Event
    start: Boundary
    end: Boundary
    series_id: str | None = None
    original_start: str | None = None  # a `Boundary.key`
    unread: tuple[str, ...] = ()

    def overlaps(self, since: datetime, until: datetime, zone: tzinfo) -> bool:
        """Whether any of it lies in [since, until), the dates of an all-day event being those of `zone`."""
        begins, ends = begins_at(self.start, zone), begins_at(self.end, zone)
        return begins < until and (ends > since or begins == ends == since)


def instances(
    series: Event,
    exceptions: Iterable[Event],
    since: datetime,
    until: datetime,
    *,
    zone: tzinfo = UTC,
    work: Work | None = None,
) -> list[Instance]:
    """What lies in [since, until) of a series that has `recurrence`, by start. `exceptions` are those of this series, all of
    them, since one may have been moved into the interval or out of it. `zone`: the calendar's, for dates. Never raises."""
    if series.is_cancelled:
        return []
    kept = last_words(exceptions)
    found = [
        instance
        for instance in _generated(series, since, until, zone, work or Work(MOST_WORK))
        if instance.original_start not in kept
    ]
    found += [alone(exception) for exception in kept.values() if not exception.is_cancelled]
    wanted = [instance for instance in found if instance.overlaps(since, until, zone)]
    return sorted(wanted, key=lambda instance: (begins_at(instance.start, zone), instance.id))


def alone(event: Event) -> Instance:
    """An event as it is. It has to have a time."""
    assert event.start is not None
    assert event.end is not None
    return Instance(event.external_id, event, event.start, event.end, event.master_id, event.original_start)


def last_words(exceptions: Iterable[Event]) -> dict[str, Event]:
    """By the start that each takes the place of; of two for the same it is the one updated last."""
    kept: dict[str, Event] = {}
    for exception in sorted(exceptions, key=lambda event: event.updated_at or _LONG_AGO):
        kept[exception.original_start or exception.external_id] = exception
    return kept


def begins_at(boundary: Boundary, zone: tzinfo) -> datetime:
    """Its instant; a date's is where it begins in `zone`."""
    if boundary.at is not None:
        return boundary.at
    assert boundary.date is not None
    return instant(datetime.combine(boundary.date, time()), zone)


def ends_by(series: Event) -> datetime | None:
    """Nothing of the series, its exceptions apart, lies after that; None where it has no end, or none that is easily found."""
    if series.start is None or series.end is None:
        return None
    if not series.recurrence:
        return series.end.latest
    lines = read_lines(series.recurrence)
    if lines.unread:
        return None
    try:
        times = times_of(series)
        lasts = [_last(rule, times) for _, rule in lines.rules]
        lasts += [times.moment_of(written) for written in lines.dates]
        return max([series.end.latest, *(times.end(last).latest for last in lasts)])
    except (Unreadable, OverflowError, ValueError):
        return None


def _last(rule: Rule, times: Times) -> Value:
    """The last moment of a rule, or a later one. Raises Unreadable where it has none, or finding it takes too much work."""
    if rule.until is not None:
        return times.last(rule.until)
    if rule.count is None:
        raise Unreadable
    found = starts(rule, times.first, times.first, END_OF_TIME, Work(_MOST_WORK_FOR_AN_END))
    return times.moment(max(found, default=times.first))


def _generated(
    series: Event, since: datetime, until: datetime, zone: tzinfo, work: Work
) -> Iterator[Instance]:
    """At least those of the interval, without the exceptions."""
    if series.start is None or series.end is None:
        return
    times, lines = times_of(series), read_lines(series.recurrence)
    try:
        work.spend(len(lines.dates) + len(lines.excluded_dates))
        moments = _moments(times, lines, times.around(since, until, zone), work)
    except (Unreadable, OverflowError, ValueError):  # too many dates, or at the end of all time
        lines = Lines(unread=list(series.recurrence))
        moments = {times.moment(times.first)}
    for moment in moments:
        try:
            yield _at(series, moment, times, lines)
        except (OverflowError, ValueError):  # at the end of all time
            continue


def _at(series: Event, moment: Value, times: Times, lines: Lines) -> Instance:
    start = times.start(moment)
    ending = moment.strftime("%Y%m%dT%H%M%SZ" if isinstance(moment, datetime) else "%Y%m%d")
    return Instance(
        id=f"{series.external_id}_{ending}",  # as Google names them
        event=series,
        start=start,
        end=times.end(moment),
        series_id=series.external_id,
        original_start=start.key,
        unread=tuple(lines.unread),
    )


def _moments(times: Times, lines: Lines, span: tuple[datetime, datetime], work: Work) -> set[Value]:
    """What instances begin at; `lines.unread` grows by the rules that would take too much work."""
    moments = {times.moment_of(written) for written in lines.dates}
    first = times.moment(times.first)
    # A series may have been cut off before its start, and then it is nowhere.
    if not lines.rules or any(_admits(rule, first, times) for _, rule in lines.rules):
        moments.add(first)
    for line, rule in lines.rules:
        moments |= _of_rule(line, rule, times, span, lines, work)
    for line, rule in lines.excluded_rules:
        moments -= _of_rule(line, rule, times, span, lines, work)
    moments -= {times.moment_of(written) for written in lines.excluded_dates}
    dates = {written.value for written in lines.excluded_dates if not isinstance(written.value, datetime)}
    return {moment for moment in moments if times.date_of(moment) not in dates} if dates else moments


def _of_rule(
    line: str, rule: Rule, times: Times, span: tuple[datetime, datetime], lines: Lines, work: Work
) -> set[Value]:
    try:
        moments = {times.moment(start) for start in starts(rule, times.first, *span, work)}
    except Unreadable:
        lines.unread.append(line)
        return set()
    return {moment for moment in moments if _admits(rule, moment, times)}


def _admits(rule: Rule, moment: Value, times: Times) -> bool:
    return rule.until is None or moment <= times.last(rule.until)
