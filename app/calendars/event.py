"""`Event`: one entry of a calendar as its provider keeps it, whichever provider that is. Pure.

A series is one event with its rule (Google), or a master beside instances that the provider has expanded itself (Microsoft).
An exception is an instance that was moved, changed or cancelled; it takes the place of the instance of its series that begins
at `original_start`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any

_WIDEST_OFFSET = timedelta(hours=14)  # a date begins and ends at another moment in each zone
CANCELLED = "cancelled"


class Kind(StrEnum):
    """What an event is beside others of its calendar."""

    SINGLE = "single"
    SERIES = "series"  # with `recurrence`: expanded by us; without: its instances are events themselves
    INSTANCE = "instance"  # as its series has it; what it lacks it has from there
    EXCEPTION = "exception"


@dataclass(frozen=True, slots=True)
class Boundary:
    """When an event begins or ends: at an instant, `zone` being where it was meant, or with a date, which is no instant.

    An all-day event ends before its last date: the end is exclusive (RFC 5545 section 3.6.1).
    """

    at: datetime | None = None  # in UTC
    date: date | None = None
    zone: str | None = None  # of the IANA's data base

    @property
    def key(self) -> str:
        """What tells it from others, for `original_start`."""
        if self.date is not None:
            return self.date.isoformat()
        assert self.at is not None
        return self.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def earliest(self) -> datetime:
        """No zone has it before that."""
        return self._instant(-_WIDEST_OFFSET)

    @property
    def latest(self) -> datetime:
        """No zone has it after that."""
        return self._instant(_WIDEST_OFFSET)

    def _instant(self, offset: timedelta) -> datetime:
        if self.at is not None:
            return self.at
        assert self.date is not None
        midnight = datetime.combine(self.date, time(), UTC)
        try:
            return midnight + offset
        except OverflowError:  # in the first and the last days of all
            return midnight


@dataclass(frozen=True, slots=True)
class Event:
    """`external_id` is the provider's, and the same for as long as the event lives; case matters in it.

    `start` and `end` are None in a cancelled instance only. `raw` is what the provider said.
    """

    external_id: str
    kind: Kind
    status: str  # confirmed, tentative, cancelled
    start: Boundary | None
    end: Boundary | None
    ical_uid: str | None = None
    master_id: str | None = None
    original_start: str | None = None  # a `Boundary.key`
    recurrence: tuple[str, ...] = ()  # lines of RFC 5545: RRULE, RDATE, EXDATE
    etag: str | None = None
    updated_at: datetime | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_cancelled(self) -> bool:
        return self.status == CANCELLED

    def is_older_than(self, other: Event) -> bool:
        """Whether both say when they were last changed, and this one earlier."""
        if self.updated_at is None or other.updated_at is None:
            return False
        return self.updated_at < other.updated_at
