"""Identifiers: UUIDv7, whose order is the order of making (RFC 9562 section 5.7)."""

from __future__ import annotations

import secrets
from datetime import datetime
from uuid import UUID


def uuid7(now: datetime) -> UUID:
    """A new id: 48 bits of milliseconds since 1970, 12 bits of their fraction (section 6.2, method 3), 62 random bits."""
    microseconds = round(now.timestamp() * 1_000_000)
    milliseconds, fraction = divmod(microseconds, 1000)
    value = (milliseconds & (2**48 - 1)) << 80 | secrets.randbits(62)
    value |= 0x7 << 76  # version
    value |= (fraction * 4096 // 1000) << 64
    value |= 0x2 << 62  # variant
    return UUID(int=value)
