"""`Rule`: what a RRULE says (RFC 5545 section 3.3.10). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from app.calendars.moments import Unreadable, Value, read_value

_WEEKDAYS = {name: number for number, name in enumerate(("MO", "TU", "WE", "TH", "FR", "SA", "SU"))}
_BYDAY = re.compile(r"([+-]?[0-9]{1,2})?(MO|TU|WE|TH|FR|SA|SU)")
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")
_MOST_TIMES = 1440  # of a day


class Frequency(StrEnum):
    """Finer ones than a day are refused, as Google does."""

    DAILY = "DAILY"
    WEEKLY = "WEEKLY"
    MONTHLY = "MONTHLY"
    YEARLY = "YEARLY"


@dataclass(frozen=True, slots=True)
class Rule:
    """`weekdays` are (ordinal, weekday): (0, 1) is every Tuesday, (-1, 4) the last Friday."""

    frequency: Frequency
    interval: int = 1
    count: int | None = None
    until: Value | None = None
    week_start: int = 0
    months: frozenset[int] = frozenset()
    month_days: frozenset[int] = frozenset()
    year_days: frozenset[int] = frozenset()
    weeks: frozenset[int] = frozenset()
    weekdays: frozenset[tuple[int, int]] = frozenset()
    hours: frozenset[int] = frozenset()
    minutes: frozenset[int] = frozenset()
    seconds: frozenset[int] = frozenset()
    positions: frozenset[int] = frozenset()


def read_rule(text: str) -> Rule:
    """The value of a RRULE or EXRULE line. Raises Unreadable."""
    fields: dict[str, str] = {}
    for part in text.strip().upper().strip(";").split(";"):
        name, equals, value = part.partition("=")
        if not equals or not value or name in fields:
            raise Unreadable
        fields[name] = value
    if fields.get("FREQ") not in list(Frequency) or ("COUNT" in fields and "UNTIL" in fields):
        raise Unreadable
    rule = Rule(
        frequency=Frequency(fields.pop("FREQ")),
        interval=_positive(fields.pop("INTERVAL", "1")),
        count=_positive(fields.pop("COUNT")) if "COUNT" in fields else None,
        until=read_value(fields.pop("UNTIL")) if "UNTIL" in fields else None,
        week_start=_weekday(fields.pop("WKST", "MO")),
        months=_numbers(fields.pop("BYMONTH", ""), 1, 12),
        month_days=_numbers(fields.pop("BYMONTHDAY", ""), -31, 31),
        year_days=_numbers(fields.pop("BYYEARDAY", ""), -366, 366),
        weeks=_numbers(fields.pop("BYWEEKNO", ""), -53, 53),
        weekdays=_weekdays(fields.pop("BYDAY", "")),
        hours=_numbers(fields.pop("BYHOUR", ""), 0, 23),
        minutes=_numbers(fields.pop("BYMINUTE", ""), 0, 59),
        seconds=_numbers(fields.pop("BYSECOND", ""), 0, 59),
        positions=_numbers(fields.pop("BYSETPOS", ""), -366, 366),
    )
    times = max(1, len(rule.hours)) * max(1, len(rule.minutes)) * max(1, len(rule.seconds))
    if fields or times > _MOST_TIMES:  # what is not understood may change everything
        raise Unreadable
    return rule


def _positive(text: str) -> int:
    number = _integer(text)
    if number < 1:
        raise Unreadable
    return number


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise Unreadable
    return int(text)


def _numbers(text: str, least: int, most: int) -> frozenset[int]:
    """0 is one of them only where counting begins with it."""
    numbers = frozenset(_integer(part) for part in text.split(",")) if text else frozenset()
    if any(not least <= number <= most or (number == 0 and least < 0) for number in numbers):
        raise Unreadable
    return numbers


def _weekday(text: str) -> int:
    if text not in _WEEKDAYS:
        raise Unreadable
    return _WEEKDAYS[text]


def _weekdays(text: str) -> frozenset[tuple[int, int]]:
    named = []
    for part in text.split(",") if text else ():
        match = _BYDAY.fullmatch(part)
        if match is None:
            raise Unreadable
        ordinal = int(match[1]) if match[1] else 0
        if match[1] and not 1 <= abs(ordinal) <= 53:
            raise Unreadable
        named.append((ordinal, _WEEKDAYS[match[2]]))
    return frozenset(named)
