"""`Occurrence`: what is seen of a calendar between two times, made of what is stored of it. Pure.

A single event is one occurrence, a series of Google's as many as its rule has. Of Microsoft's series each instance is stored by
itself, and has from its master what it does not say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from typing import Any
from uuid import UUID

from app.calendars.event import Event, Kind
from app.calendars.moments import Work, zone_named
from app.calendars.recurrence import MOST_WORK, Instance, alone, begins_at, instances, last_words

_NOT_INHERITED = {"recurrence"}


@dataclass(frozen=True, slots=True)
class Occurrence:
    """`begins_at`: its start, the dates of an all-day event being those of its calendar's zone. `raw`: as the provider
    describes it, which for an instance of a series tells of the series."""

    calendar_id: UUID
    instance: Instance
    begins_at: datetime
    raw: Mapping[str, Any]

    def as_event(self) -> Event:
        """The event at this time alone."""
        at = self.instance
        return replace(
            at.event,
            external_id=at.id,
            start=at.start,
            end=at.end,
            master_id=at.series_id,
            original_start=at.original_start,
            recurrence=(),
            raw=self.raw,
        )

    @property
    def order(self) -> tuple[datetime, str, UUID]:
        return self.begins_at, self.instance.id, self.calendar_id


@dataclass(frozen=True, slots=True)
class Shown:
    """The occurrences of one event, or of one with its exceptions, and how much work finding them took."""

    occurrences: Sequence[Occurrence]
    work: int


class CalendarView:
    """One calendar between `since` and `until`. `events` are all that have a part there, all exceptions of the series among
    them, and the masters of the instances."""

    def __init__(
        self, calendar_id: UUID, zone: str | None, events: Iterable[Event], since: datetime, until: datetime
    ) -> None:
        """`zone`: the calendar's own; where it has none it is UTC."""
        self._calendar_id = calendar_id
        self._zone: tzinfo = zone_named(zone)
        self._since = since
        self._until = until
        self._series: dict[str, Event] = {}
        self._others: list[Event] = []
        self._exceptions: dict[str, list[Event]] = defaultdict(list)
        for event in events:
            if event.kind is Kind.SERIES:
                self._series[event.external_id] = event
            elif event.kind is Kind.EXCEPTION and event.master_id is not None:
                self._exceptions[event.master_id].append(event)
            else:
                self._others.append(event)

    def shown(self) -> Iterator[Shown]:
        """In no order."""
        for series in self._series.values():
            if series.recurrence:
                exceptions = self._exceptions.pop(series.external_id, ())
                work = Work(MOST_WORK)
                found = instances(series, exceptions, self._since, self._until, zone=self._zone, work=work)
                yield Shown(self._occurrences(found), MOST_WORK - work.left)
        for (
            exceptions
        ) in self._exceptions.values():  # of series that somebody else expanded, or that are not to be seen
            yield Shown(self._alone(last_words(exceptions).values()), len(exceptions))
        yield Shown(self._alone(self._others), len(self._others))

    def _alone(self, events: Iterable[Event]) -> list[Occurrence]:
        found = [alone(event) for event in events if not event.is_cancelled and event.start and event.end]
        return self._occurrences(
            [each for each in found if each.overlaps(self._since, self._until, self._zone)]
        )

    def _occurrences(self, found: Sequence[Instance]) -> list[Occurrence]:
        return [
            Occurrence(self._calendar_id, each, begins_at(each.start, self._zone), self._raw(each.event))
            for each in found
        ]

    def _raw(self, event: Event) -> Mapping[str, Any]:
        master = None if event.master_id is None else self._series.get(event.master_id)
        if event.kind is not Kind.INSTANCE or master is None:
            return event.raw
        inherited = {name: value for name, value in master.raw.items() if name not in _NOT_INHERITED}
        return {**inherited, **event.raw}
