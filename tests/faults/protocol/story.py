"""What happened, for whoever has to understand a violation; and what went wrong that nobody had foreseen."""

from __future__ import annotations

import logging

from tests.faults.protocol.clock import Time


class Story(logging.Handler):
    """As a handler of the log it hears of crashes."""

    def __init__(self, time: Time) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []
        self.crashes: list[str] = []
        self._time = time

    def tell(self, what: str) -> None:
        self.lines.append(f"{self._time.time() % 1e6:10.2f} {what}")

    def emit(self, record: logging.LogRecord) -> None:
        told = record.getMessage()
        if "crashed" in told or "never retrieved" in told:
            self.crashes.append(f"{told} {record.exc_info or ''}")

    def forget(self) -> None:
        """For another example."""
        self.lines.clear()
        self.crashes.clear()
