"""`Times`: how a series tells its times: at instants in a zone, or by dates. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Protocol

from app.calendars.event import Boundary, Event
from app.calendars.moments import Value, instant, local_date, moved, zone_named
from app.calendars.recurrence_lines import Written

_DAY = timedelta(days=1)
_LAST_SECOND = time(23, 59, 59)


class Times(Protocol):
    """A *moment* is what instances of the series begin at: an instant in UTC, or a date."""

    first: datetime
    """Where the series begins, as a local time."""

    def moment(self, local: datetime) -> Value: ...

    def moment_of(self, written: Written) -> Value:
        """What a RDATE or EXDATE means."""
        ...

    def date_of(self, moment: Value) -> date: ...

    def last(self, until: Value) -> Value:
        """The last moment that UNTIL admits."""
        ...

    def start(self, moment: Value) -> Boundary: ...

    def end(self, moment: Value) -> Boundary: ...

    def around(self, since: datetime, until: datetime, zone: tzinfo) -> tuple[datetime, datetime]:
        """Local times between which everything begins that overlaps [since, until), and some that does not."""
        ...


class Timed:
    def __init__(self, start: Boundary, end: Boundary) -> None:
        assert start.at is not None
        self._zone = zone_named(start.zone)
        self._at = start.at.astimezone(UTC).replace(microsecond=0)
        self._length = timedelta() if end.at is None else max(end.at - start.at, timedelta())
        self._zones = start.zone, end.zone
        self.first = self._at.astimezone(self._zone).replace(tzinfo=None, fold=0)

    def moment(self, local: datetime) -> Value:
        # The first one may be the second of two that read the same.
        return self._at if local == self.first else instant(local, self._zone)

    def moment_of(self, written: Written) -> Value:
        value = written.value
        if not isinstance(value, datetime):
            return self.moment(datetime.combine(value, self.first.time()))
        if value.tzinfo is not None:
            return value
        return instant(value, zone_named(written.zone, self._zone))

    def date_of(self, moment: Value) -> date:
        assert isinstance(moment, datetime)
        return moment.astimezone(self._zone).date()

    def last(self, until: Value) -> Value:
        if not isinstance(until, datetime):  # RFC 5545 has none for times; as people mean it
            return instant(datetime.combine(until, _LAST_SECOND), self._zone)
        return until if until.tzinfo is not None else instant(until, self._zone)

    def start(self, moment: Value) -> Boundary:
        assert isinstance(moment, datetime)
        return Boundary(at=moment, zone=self._zones[0])

    def end(self, moment: Value) -> Boundary:
        assert isinstance(moment, datetime)
        return Boundary(at=moment + self._length, zone=self._zones[1])

    def around(self, since: datetime, until: datetime, zone: tzinfo) -> tuple[datetime, datetime]:
        return _around(since, until, self._zone, self._length)


class AllDay:
    def __init__(self, start: Boundary, end: Boundary) -> None:
        assert start.date is not None
        self._length = _DAY if end.date is None else max(end.date - start.date, timedelta())
        self.first = datetime.combine(start.date, time())

    def moment(self, local: datetime) -> Value:
        return local.date()

    def moment_of(self, written: Written) -> Value:
        return local_date(written.value)

    def date_of(self, moment: Value) -> date:
        return moment

    def last(self, until: Value) -> Value:
        return local_date(until)

    def start(self, moment: Value) -> Boundary:
        return Boundary(date=moment)

    def end(self, moment: Value) -> Boundary:
        return Boundary(date=moment + self._length)

    def around(self, since: datetime, until: datetime, zone: tzinfo) -> tuple[datetime, datetime]:
        return _around(since, until, zone, self._length)


def times_of(series: Event) -> Times:
    """Those of a series that has a start and an end. An end of the other sort is none."""
    assert series.start is not None
    assert series.end is not None
    sort = Timed if series.start.date is None else AllDay
    return sort(series.start, series.end)


def _around(since: datetime, until: datetime, zone: tzinfo, length: timedelta) -> tuple[datetime, datetime]:
    """A day more on both sides, for what changes of the clock may move."""
    earliest = moved(moved(since, -_DAY), -length).astimezone(zone)
    latest = moved(until, _DAY).astimezone(zone)
    return earliest.replace(tzinfo=None), latest.replace(tzinfo=None)
