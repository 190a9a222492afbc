"""When a calendar is synced next: pure."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from app.calendars.trouble import ErrorType, Trouble

_JITTER = 0.1
_USERS = timedelta(hours=1)
_GONE = timedelta(days=1)
_OPERATORS = timedelta(hours=1)
_BASE, _CAP = timedelta(minutes=1), timedelta(hours=1)


def next_regular(now: datetime, every: timedelta) -> datetime:
    """Not all at once."""
    return now + every * random.uniform(1 - _JITTER, 1 + _JITTER)


def next_after(trouble: Trouble, failures: int, now: datetime) -> datetime:
    """After the `failures`-th failure in a row: later each time, and never before the provider wants to be asked."""
    if trouble.error_type is ErrorType.PERMISSION_MISSING:
        pause = _USERS
    elif trouble.error_type is ErrorType.CALENDAR_NOT_FOUND:
        pause = _GONE
    elif trouble.error_type is ErrorType.MISCONFIGURED:
        pause = _OPERATORS
    else:
        pause = min(_CAP, _BASE * 2 ** min(failures - 1, 10))
    asked_for = timedelta(seconds=trouble.retry_after or 0)
    return now + max(asked_for, pause) * random.uniform(1, 1 + _JITTER)
