"""`Trouble`: why a calendar could not be synced, in words for the user, and what becomes of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class ErrorType(StrEnum):
    """What callers decide by."""

    AUTHENTICATION_EXPIRED = "authentication_expired"
    PERMISSION_MISSING = "permission_missing"
    RATE_LIMITED = "rate_limited"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    CALENDAR_NOT_FOUND = "calendar_not_found"
    MISCONFIGURED = "misconfigured"
    INTERNAL = "internal"


# What only the user can mend: nothing comes of asking again soon.
USERS_TO_MEND = {ErrorType.AUTHENTICATION_EXPIRED, ErrorType.PERMISSION_MISSING}
# What holds for every calendar of a grant, so that the others need not be tried.
OF_THE_GRANT = {*USERS_TO_MEND, ErrorType.MISCONFIGURED}

_SENTENCES = {
    ErrorType.AUTHENTICATION_EXPIRED: "Your {calendar} connection has expired. Please reconnect.",
    ErrorType.PERMISSION_MISSING: "Calendar permission was not granted. Please reconnect, and allow access to {calendar}.",
    ErrorType.RATE_LIMITED: "{calendar} is temporarily busy. {next}",
    ErrorType.PROVIDER_UNAVAILABLE: "{calendar} cannot be reached at the moment. {next}",
    ErrorType.CALENDAR_NOT_FOUND: "This calendar is not there any more at {calendar}.",
    ErrorType.MISCONFIGURED: "{calendar} does not accept this service's set-up. It is on our side, and our operators are told.",
    ErrorType.INTERNAL: "{calendar} could not be synced. It is on our side. {next}",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """`calendar`: what people call the provider's, `Google Calendar`. `retry_after`: seconds, where the provider named them.
    `provider_code`: its own word for it."""

    error_type: ErrorType
    calendar: str
    retry_after: int | None = None
    provider_code: str | None = None

    def sentence(self, next_at: datetime | None = None) -> str:
        """What the user reads; `next_at`: when it is tried again."""
        soon = "Please try again later." if next_at is None else f"Next try at {next_at:%H:%M} UTC."
        return _SENTENCES[self.error_type].format(calendar=self.calendar, next=soon)


class SyncFailed(Exception):
    """A calendar, or a grant's list of them, cannot be synced now. `next_at`: when it is tried again, where that is known."""

    next_at: datetime | None = None

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(f"{trouble.error_type}: {trouble.provider_code}")
        self.trouble = trouble


class BaselineNeeded(Exception):
    """What was synced so far cannot be gone on from: everything has to be fetched again."""
