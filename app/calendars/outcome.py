"""What a sync came to: for each calendar, for a grant's together, and for a user's. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from app.calendars.trouble import USERS_TO_MEND, ErrorType, Trouble


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

    @property
    def changed_nothing(self) -> bool:
        """Whether it went well, and there was nothing to do."""
        went_well = self.status is CalendarStatus.SUCCESS and self.mode is Mode.INCREMENTAL
        return went_well and self.counts == Counts()

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
    """What became of a grant's calendars, as it is answered and kept. `run_id` None: it is not known yet. `error_type`: of what kept all of them, or some, from
    being synced. `calendars`: each one's `CalendarOutcome.fields`."""

    run_id: UUID | None
    status: SyncStatus
    message: str
    error_type: ErrorType | None
    calendars: Sequence[Mapping[str, Any]]
    next_at: datetime | None
    retry_after: int | None = None

    @property
    def is_good(self) -> bool:
        """Whether anything at all was synced."""
        return self.status in {SyncStatus.SUCCESS, SyncStatus.PARTIAL}


def concluded(
    run_id: UUID,
    calendars: Sequence[CalendarOutcome],
    *,
    title: str,
    trouble: Trouble | None = None,
    next_at: datetime | None = None,
) -> SyncOutcome:
    """What all of it comes to. `trouble`: of the grant itself, such as its list of calendars, which is
    read again at `next_at`; `title`: what people call the
    provider's calendar."""
    failed = [each for each in calendars if each.trouble is not None]
    worst = trouble or next((each.trouble for each in failed), None)
    next_at = min((each.next_at for each in calendars if each.next_at is not None), default=next_at)
    if worst is None:
        status, message = SyncStatus.SUCCESS, _good_news(title, calendars)
    elif len(failed) < len(calendars):
        status, message = (
            SyncStatus.PARTIAL,
            f"Some of your calendars are up to date. {worst.sentence(next_at)}",
        )
    else:
        status, message = _status_of(worst), worst.sentence(next_at)
    return SyncOutcome(
        run_id=run_id,
        status=status,
        message=message,
        error_type=None if worst is None else worst.error_type,
        calendars=[each.fields() for each in calendars],
        next_at=next_at,
        retry_after=None if worst is None else worst.retry_after,
    )


def together(outcomes: Sequence[SyncOutcome]) -> SyncOutcome:
    """What the syncs of several grants of a user come to."""
    if len(outcomes) == 1:
        return outcomes[0]
    worst = next((each for each in outcomes if each.error_type is not None), outcomes[0])
    some = any(each.is_good for each in outcomes) and not all(
        each.status is SyncStatus.SUCCESS for each in outcomes
    )
    return SyncOutcome(
        run_id=outcomes[0].run_id,
        status=SyncStatus.PARTIAL if some else worst.status,
        message=" ".join(dict.fromkeys(each.message for each in outcomes)),
        error_type=worst.error_type,
        calendars=[calendar for each in outcomes for calendar in each.calendars],
        next_at=min((each.next_at for each in outcomes if each.next_at is not None), default=None),
        retry_after=worst.retry_after,
    )


def _good_news(title: str, calendars: Sequence[CalendarOutcome]) -> str:
    if any(each.status is CalendarStatus.RUNNING for each in calendars):
        return f"Your {title} is being synced at this moment."
    if any(each.rebuilt for each in calendars):
        return "Rebuilding your calendar: done. Everything was fetched again, and is up to date."
    return f"Your {title} is up to date." if calendars else f"There are no calendars in your {title}."


def _status_of(trouble: Trouble) -> SyncStatus:
    if trouble.error_type in USERS_TO_MEND:
        return SyncStatus.TOKEN_UNAVAILABLE
    if trouble.error_type in {ErrorType.PROVIDER_UNAVAILABLE, ErrorType.RATE_LIMITED}:
        return SyncStatus.PROVIDER_UNAVAILABLE
    return SyncStatus.FAILED
