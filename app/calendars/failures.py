"""Syncs that failed, as operators see them."""

from __future__ import annotations

from uuid import UUID

from app.calendars.trouble import ErrorType, Trouble
from app.metrics import CALENDAR_SYNCS
from app.telemetry import logger

log = logger(__name__)

_OPERATORS_TO_MEND = {ErrorType.MISCONFIGURED, ErrorType.INTERNAL}


def note_failed(trouble: Trouble, provider: str, *, grant_id: UUID) -> None:
    """Counts it, and says why; louder where nobody but operators can do anything."""
    CALENDAR_SYNCS.labels(provider, trouble.error_type.value).inc()
    say = log.error if trouble.error_type in _OPERATORS_TO_MEND else log.info
    say(
        "calendar.failed",
        provider=provider,
        grant_id=str(grant_id),
        error_type=trouble.error_type.value,
        provider_code=trouble.provider_code,
    )
