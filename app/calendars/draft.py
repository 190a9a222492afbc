"""`Draft`: what somebody wants an event to be, whichever provider is to keep it. Pure.

A new event has a start and an end; a change has what is to be another. Of what a draft names, None stands for nothing: it is
taken away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from typing import Any
from zoneinfo import available_timezones

from app.calendars.event import Boundary
from app.errors import ValidationFailed

_STAYS = ("start", "end", "status")  # what every event has
_LINE = re.compile(r"(RRULE|RDATE|EXDATE)[:;][\x21-\x7e]+")
_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+")


@dataclass(frozen=True, slots=True)
class Time:
    """When an event begins or ends, as it was given: a date, or an instant and the zone that it is meant in."""

    date: str | None = None
    date_time: datetime | None = None
    time_zone: str | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """`given`: what it names, by the names of the fields here; nothing else in it counts."""

    given: frozenset[str]
    title: str | None = None
    description: str | None = None
    location: str | None = None
    start: Boundary | None = None
    end: Boundary | None = None
    recurrence: tuple[str, ...] | None = None  # lines of RFC 5545: RRULE, RDATE, EXDATE
    attendees: tuple[str, ...] | None = None  # e-mail addresses
    status: str | None = None  # confirmed, tentative


def draft_of(fields: Mapping[str, Any], *, is_new: bool) -> Draft:
    """The draft that names `fields`, of which `start` and `end` are `Time`. Raises ValidationFailed for each that is wrong."""
    mistakes = dict(_mistakes(fields, is_new))
    if mistakes:
        sentence = "; ".join(f"{name} {mistake}" for name, mistake in mistakes.items())
        raise ValidationFailed(f"The event is not valid: {sentence}.", fields=mistakes)
    values: dict[str, Any] = {name: _as_kept(value) for name, value in fields.items()}
    return Draft(frozenset(fields), **values)


def refused(field: str, mistake: str, sentence: str) -> ValidationFailed:
    """What a provider cannot have, said of one field."""
    return ValidationFailed(sentence, fields={field: mistake})


def _mistakes(fields: Mapping[str, Any], is_new: bool) -> Iterator[tuple[str, str]]:
    if not is_new and not fields:
        yield "body", "must name at least one field that is to be changed"
    for name in _STAYS:
        if name in fields and fields[name] is None:
            yield f"body.{name}", "cannot be taken away: every event has one; leave it out to keep it"
        elif is_new and name in ("start", "end") and name not in fields:
            yield f"body.{name}", "must be given"
    times = {name: fields[name] for name in ("start", "end") if fields.get(name) is not None}
    found = [each for name, time in times.items() for each in _of_time(f"body.{name}", time)]
    yield from found
    if not found and len(times) == 2:
        yield from _of_span(times["start"], times["end"])
    yield from _of_lines(fields)
    for index, address in enumerate(fields.get("attendees") or ()):
        if not _ADDRESS.fullmatch(address):
            yield f"body.attendees.{index}", "must be an e-mail address"


def _of_time(path: str, time: Time) -> Iterator[tuple[str, str]]:
    if (time.date is None) == (time.date_time is None):
        yield path, "must have either `date` (of an all-day event) or `date_time`"
    elif time.date is not None and time.time_zone is not None:
        yield f"{path}.time_zone", "must be left out: an all-day event is in no time zone"
    elif time.date is not None and not _is_date(time.date):
        yield f"{path}.date", "must be a date such as 2026-12-01"
    if time.time_zone is not None and time.time_zone not in _zones():
        yield (
            f"{path}.time_zone",
            f"must be a zone of the IANA's data base such as Europe/Berlin (got {time.time_zone!r})",
        )


def _of_span(start: Time, end: Time) -> Iterator[tuple[str, str]]:
    """Of an all-day event the end is exclusive: the day after its last (RFC 5545 section 3.6.1)."""
    if (start.date is None) != (end.date is None):
        kind = "date_time" if start.date is None else "date"
        yield "body.end", f"must be a `{kind}`, as body.start is"
    elif start.date is not None and end.date is not None and end.date <= start.date:
        yield "body.end.date", "must be after body.start.date: it is the day after the event's last"
    elif start.date_time is not None and end.date_time is not None and end.date_time < start.date_time:
        yield "body.end.date_time", "must not be before body.start.date_time"


def _of_lines(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    lines = fields.get("recurrence") or ()
    for index, line in enumerate(lines):
        if not _LINE.fullmatch(line):
            yield (
                f"body.recurrence.{index}",
                "must be a line RRULE, RDATE or EXDATE of RFC 5545, such as RRULE:FREQ=WEEKLY;COUNT=6",
            )
    start = fields.get("start")
    if lines and start is not None and start.date_time is not None and start.time_zone is None:
        yield (
            "body.start.time_zone",
            "must be given with body.recurrence: it says whose clock the rule goes by",
        )


def _as_kept(value: Any) -> Any:
    if isinstance(value, Time):
        return _boundary(value)
    return tuple(value) if isinstance(value, list) else value


def _boundary(time: Time) -> Boundary:
    if time.date is not None:
        return Boundary(date=date.fromisoformat(time.date))
    assert time.date_time is not None
    return Boundary(at=time.date_time.astimezone(UTC), zone=time.time_zone)


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones()) - {"localtime", "Factory"}
