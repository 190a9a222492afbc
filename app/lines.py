"""Log lines of which there are thousands a second and which hardly differ.

A line that structlog makes costs more than the answer it tells of (docs/performance.md). So one is rendered by the log's own
chain, redaction included, with gaps for what differs; after that a line is a few strings put together, and those of a
moment are written at once.
"""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

from app.telemetry import rendered


class Gaps:
    """A line with gaps for what differs."""

    def __init__(self, facts: Mapping[str, object], *, texts: Sequence[str], numbers: Sequence[str]) -> None:
        """`facts` are the same in each. What is filled in is not looked through for secrets."""
        marks = {name: f"gap{place}x{secrets.token_hex(8)}" for place, name in enumerate((*texts, *numbers))}
        text = rendered({**marks, **facts}) + "\n"
        for name in numbers:
            text = text.replace(f'"{marks[name]}"', marks[name])  # no quotes around it
        self._parts = re.split("(" + "|".join(marks.values()) + ")", text)
        self._places = [self._parts.index(mark) for mark in marks.values()]

    def filled(self, *values: str) -> str:
        """The line, with the values of `texts` and then those of `numbers`."""
        parts = self._parts.copy()
        for place, value in zip(self._places, values, strict=True):
            parts[place] = value
        return "".join(parts)


class Lines:
    """Collects lines, for whoever has them written to standard error now and then."""

    def __init__(self) -> None:
        self._waiting: list[str] = []

    def add(self, line: str) -> None:
        self._waiting.append(line)

    def write(self) -> None:
        """What is waiting, at once."""
        if self._waiting:
            lines, self._waiting = self._waiting, []
            with suppress(OSError, ValueError):  # nobody reads it any more, as with any other line
                sys.stderr.write("".join(lines))
                sys.stderr.flush()
