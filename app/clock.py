"""Time, asked of one place. Everything that needs it takes a `Clock`, or takes `now` as an argument."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The time, aware and in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow; for measuring spans."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class DatabaseClock(SystemClock):
    """PostgreSQL's time, carried on by this machine's monotonic clock: replicas agree, however wrong or jumpy their own
    clocks are. Until it is first set it is the machine's."""

    def __init__(self) -> None:
        self._origin: datetime | None = None  # PostgreSQL's time when the monotonic clock was 0

    def set(self, time: datetime, *, at: float) -> None:
        """It was `time` at PostgreSQL when the monotonic clock showed `at`."""
        self._origin = time - timedelta(seconds=at)

    def now(self) -> datetime:
        if self._origin is None:
            return super().now()
        return self._origin + timedelta(seconds=self.monotonic())
