"""How events are chained: each hash covers one event, its place, and the hash before. Pure.

hash = HMAC-SHA256(key, hash before | sequence | version | key id | sealed at | every column of the event)

The key is derived from a data key of the vault, so whoever can write the database alone cannot make hashes that hold.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

PURPOSE = "audit chain"  # what the vault derives the key for
PRUNING_PURPOSE = "audit pruning"
VERSION = 1  # of how an event becomes bytes
NOTHING = bytes(32)  # the hash before the first

_HEAD = re.compile(r"(\d{1,18}):([0-9a-f]{64})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Head:
    """A place in the chain: everything up to it is what led to this hash."""

    sequence: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash.hex()}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Raises ValueError for anything but `<sequence>:<64 hex digits>`."""
        match = _HEAD.fullmatch(text.strip())
        if match is None:
            raise ValueError("must be <sequence>:<64 hex digits>")
        return cls(int(match[1]), bytes.fromhex(match[2]))


EMPTY = Head(0, NOTHING)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event in every column. `details` is PostgreSQL's text of it, so that no number is rounded on the way."""

    id: UUID
    actor: str
    action: str
    provider: str | None
    user_id: str | None
    grant_id: UUID | None
    request_id: str | None
    details: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Seal:
    """What goes into a hash besides the event and the hash before."""

    sequence: int
    key_id: UUID
    sealed_at: datetime
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Link:
    """A row of the chain, with the event that it names; None where that is not there."""

    seal: Seal
    event_id: UUID
    hash: bytes
    event: StoredEvent | None


def chained(key: bytes, before: bytes, seal: Seal, event: StoredEvent) -> bytes:
    """The hash of the event in that place."""
    place = b"".join(
        (
            before,
            seal.sequence.to_bytes(8),
            seal.version.to_bytes(2),
            seal.key_id.bytes,
            _microseconds(seal.sealed_at),
        )
    )
    return hmac.digest(key, place + _canonical(event), "sha256")


def pruned_proof(key: bytes, beginning: Head, *, events: int, before: datetime) -> str:
    """Shows that the service itself pruned so many events, up to this place; with a key of PRUNING_PURPOSE."""
    text = f"{beginning}|{events}|{before.isoformat()}"
    return hmac.digest(key, text.encode(), "sha256").hex()


def _canonical(event: StoredEvent) -> bytes:
    """Version 1: each column in order, its length before it, so that no two events have the same bytes."""
    return b"".join(
        (
            event.id.bytes,
            _microseconds(event.at),
            _text(event.actor),
            _text(event.action),
            _text(event.provider),
            _text(event.user_id),
            _text(None if event.grant_id is None else event.grant_id.hex),
            _text(event.request_id),
            _text(event.details),
        )
    )


def _text(value: str | None) -> bytes:
    if value is None:
        return b"\0"
    encoded = value.encode()
    return b"\1" + len(encoded).to_bytes(4) + encoded


def _microseconds(time: datetime) -> bytes:
    return ((time - _EPOCH) // _MICROSECOND).to_bytes(8, signed=True)
