"""Identifiers: UUIDv7, whose order is the order of making (RFC 9562 section 5.7)."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MILLISECOND = 253_402_300_799_999  # of the year 9999


def uuid7(now: datetime) -> UUID:
    """A new id: 48 bits of milliseconds since 1970, 12 bits of their fraction (section 6.2, method 3), 62 random bits."""
    microseconds = round(now.timestamp() * 1_000_000)
    milliseconds, fraction = divmod(microseconds, 1000)
    value = (milliseconds & (2**48 - 1)) << 80 | secrets.randbits(62)
    value |= 0x7 << 76  # version
    value |= (fraction * 4096 // 1000) << 64
    value |= 0x2 << 62  # variant
    return UUID(int=value)


def time_of(id: UUID) -> datetime:
    """When an id was made, to the millisecond. Of one that is none of ours it is some time or other."""
    return _EPOCH + timedelta(milliseconds=min(id.int >> 80, _LAST_MILLISECOND))


def least_at(time: datetime) -> UUID:
    """Comes before every id that is made at `time` or later, and after those made over a millisecond before."""
    milliseconds = max(0, (time - _EPOCH) // timedelta(milliseconds=1) - 1)
    return UUID(int=milliseconds << 80)
