"""What is stored of a grant's calendars and of their syncs, as it is read. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class StoredCalendar:
    """A calendar as it was last listed, and how its syncs went. `last_error` is what kept the last one from success."""

    id: UUID
    grant_id: UUID
    external_id: str
    name: str
    zone: str | None
    access_role: str
    is_primary: bool
    last_ok_at: datetime | None
    last_full_at: datetime | None
    next_attempt_at: datetime | None
    failures: int
    last_error: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Run:
    """What one sync of a grant's calendars came to."""

    id: UUID
    grant_id: UUID
    trigger: str
    status: str
    error_type: str | None
    message: str
    calendars: Sequence[Mapping[str, Any]]
    started_at: datetime
    ended_at: datetime
