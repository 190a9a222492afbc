"""Dates, local times and instants as lines of RFC 5545 write them, zones, and how much work a reading may take. Pure."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

Value = date | datetime  # a datetime without a zone is a local time

_VALUE = re.compile(r"([0-9]{8})(?:T([0-9]{6})(Z?))?")
_FIRST = datetime(1, 1, 3, tzinfo=UTC)  # every zone has the days in between
_LAST = datetime(9999, 12, 29, tzinfo=UTC)


class Unreadable(Exception):
    """A line says nothing that is understood, or something that would take too much work."""


class Work:
    """How much may still be done: days looked at and starts found."""

    def __init__(self, most: int) -> None:
        self.left = most

    def spend(self, amount: int) -> None:
        """Raises Unreadable when nothing is left."""
        self.left -= amount
        if self.left < 0:
            raise Unreadable


def read_value(text: str) -> Value:
    """A DATE, or a DATE-TIME that is local or in UTC (RFC 5545 sections 3.3.4 and 3.3.5). Raises Unreadable."""
    match = _VALUE.fullmatch(text.strip().upper())
    if match is None:
        raise Unreadable
    try:
        if match[2] is None:
            return datetime.strptime(match[1], "%Y%m%d").date()  # noqa: DTZ007
        value = datetime.strptime(match[1] + match[2], "%Y%m%d%H%M%S")  # noqa: DTZ007
    except ValueError as error:
        raise Unreadable from error
    return value.replace(tzinfo=UTC) if match[3] else value


def local_date(value: Value) -> date:
    """As it is written, wherever that is meant."""
    return value.date() if isinstance(value, datetime) else value


@lru_cache(maxsize=1024)
def zone_named(name: str | None, otherwise: tzinfo = UTC) -> tzinfo:
    """A zone of the IANA's data base; a name that it does not have means `otherwise`."""
    if name is None:
        return otherwise
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # whatever the name led to is no zone
        return otherwise


def instant(local: datetime, zone: tzinfo) -> datetime:
    """In UTC. What occurs twice is the first of both; what does not occur is read with the offset before the gap (RFC 5545
    section 3.3.5), as Google does: RFC 5545 section 3.3.10 would have it left out."""
    return local.replace(tzinfo=zone, fold=0).astimezone(UTC)


def moved(moment: datetime, by: timedelta) -> datetime:
    """No further than there are dates in every zone."""
    try:
        return min(max(moment + by, _FIRST), _LAST)
    except OverflowError:
        return _LAST if by > timedelta() else _FIRST
