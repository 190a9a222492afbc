"""Data keys: what seals values. They are kept wrapped only, and each is in force for a while."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID


@dataclass(frozen=True)
class WrappedKey:
    """As it is kept. `key_encryption_key` names what wrapped it; it seals from `active_at` on, and has sealed `seals` values
    so far. `emptied_at`: nothing that is kept was sealed under it any more."""

    id: UUID
    key_encryption_key: str
    wrapped_key: bytes
    active_at: datetime
    seals: int = 0
    emptied_at: datetime | None = None


@dataclass(frozen=True)
class DataKey:
    """As it is used: 32 bytes, in memory only."""

    id: UUID
    key: bytes
    active_at: datetime


@dataclass(frozen=True)
class Policy:
    """When a data key has done enough. Random nonces of 96 bits are safe for 2^32 values under one key (NIST SP 800-38D
    section 8.3); `most_seals` stays far below. `notice`: how long every replica has to learn of a new key before it seals.
    """

    max_age: timedelta = timedelta(days=90)
    most_seals: int = 1_000_000_000
    notice: timedelta = timedelta(seconds=60)

    def is_due(self, keys: Sequence[WrappedKey], now: datetime) -> bool:
        """Whether the newest of `keys` is to be followed by another one."""
        newest = newest_of(keys)
        if newest.active_at > now:
            return False
        return now - newest.active_at >= self.max_age or newest.seals >= self.most_seals


def newest_of(keys: Sequence[WrappedKey]) -> WrappedKey:
    """The one that seals last."""
    return max(keys, key=lambda key: (key.active_at, key.id))


def present(keys: Sequence[DataKey], now: datetime) -> DataKey | None:
    """The one that seals now; None before the first is in force."""
    return max(
        (key for key in keys if key.active_at <= now), key=lambda key: (key.active_at, key.id), default=None
    )
