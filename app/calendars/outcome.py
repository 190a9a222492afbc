"""What a sync came to: for each calendar, and for a grant's together. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from app.calendars.trouble import OF_THE_GRANT, ErrorType, Trouble


class SyncStatus(StrEnum):
    """Of all calendars together."""

    SUCCESS = "success"
    PARTIAL = "partial"
    TOKEN_UNAVAILABLE = "token_unavailable"  # only the user can mend it
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    FAILED = "failed"


class CalendarStatus(StrEnum):
    """Of one calendar."""

    SUCCESS = "success"
    FAILED = "failed"
    RUNNING = "running"  # it is being synced elsewhere at this moment


class Mode(StrEnum):
    FULL = "full"
    INCREMENTAL = "incremental"


class SyncTrigger(StrEnum):
    """Who asked for a sync."""

    REQUEST = "request"
    AUTO = "auto"
    SCHEDULER = "scheduler"


@dataclass(frozen=True, slots=True)
class Counts:
    """Events that were new, changed and gone."""

    added: int = 0
    updated: int = 0
    deleted: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.added + other.added, self.updated + other.updated, self.deleted + other.deleted)


@dataclass(frozen=True, slots=True)
class CalendarOutcome:
    """What became of one calendar. `rebuilt`: the provider wanted everything to be fetched again."""

    id: str  # the provider's
    name: str
    status: CalendarStatus
    mode: Mode
    counts: Counts = Counts()
    trouble: Trouble | None = None
    next_at: datetime | None = None
    rebuilt: bool = False

    def fields(self) -> dict[str, Any]:
        """As it is answered and kept."""
        error = None
        if self.trouble is not None:
            error = {
                "error_type": self.trouble.error_type,
                "message": self.trouble.sentence(self.next_at),
                "provider_code": self.trouble.provider_code,
            }
        return {
            "id": self.id,
            "name": self.name,
            "status": self.status,
            "mode": self.mode,
            "added": self.counts.added,
            "updated": self.counts.updated,
            "deleted": self.counts.deleted,
            "rebuilt": self.rebuilt,
            "error": error,
        }


@dataclass(frozen=True, slots=True)
class SyncOutcome:
    """What became of a grant's calendars. `trouble`: what kept all of them, or some, from being synced."""

    run_id: UUID
    grant_id: UUID
    status: SyncStatus
    message: str
    trouble: Trouble | None
    calendars: Sequence[CalendarOutcome]
    next_at: datetime | None


def concluded(
    run_id: UUID,
    grant_id: UUID,
    calendars: Sequence[CalendarOutcome],
    *,
    title: str,
    trouble: Trouble | None = None,
    next_at: datetime | None = None,
) -> SyncOutcome:
    """What all of it comes to. `trouble`: of the grant itself, such as its list of calendars."""
    failed = [each for each in calendars if each.trouble is not None]
    worst = trouble or next((each.trouble for each in failed), None)
    if worst is None:
        return SyncOutcome(
            run_id, grant_id, SyncStatus.SUCCESS, _good_news(title, calendars), None, calendars, next_at
        )
    sentence = worst.sentence(next_at)
    if len(failed) < len(calendars):
        status, message = SyncStatus.PARTIAL, f"Some of your calendars are up to date. {sentence}"
    else:
        status, message = _status_of(worst), sentence
    return SyncOutcome(run_id, grant_id, status, message, worst, calendars, next_at)


def _good_news(title: str, calendars: Sequence[CalendarOutcome]) -> str:
    if any(each.status is CalendarStatus.RUNNING for each in calendars):
        return f"Your {title} is being synced at this moment."
    if any(each.rebuilt for each in calendars):
        return "Rebuilding your calendar: done. Everything was fetched again, and is up to date."
    return f"Your {title} is up to date." if calendars else f"There are no calendars in your {title}."


def _status_of(trouble: Trouble) -> SyncStatus:
    if trouble.error_type in {ErrorType.PROVIDER_UNAVAILABLE, ErrorType.RATE_LIMITED}:
        return SyncStatus.PROVIDER_UNAVAILABLE
    if trouble.error_type in OF_THE_GRANT - {ErrorType.MISCONFIGURED}:
        return SyncStatus.TOKEN_UNAVAILABLE
    return SyncStatus.FAILED
