"""What both fakes of calendar APIs are made of: answers, faults to come, and what they have to deliver to others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar, cast

Fault = TypeVar("Fault")
Answer = tuple[int, dict[str, str], bytes]
Query = Mapping[str, str]
Headers = Mapping[str, str]  # names in lower case


class Unanswered(Exception):
    """Nothing comes back: the connection is closed, or (`hangs`) stays open in silence."""

    def __init__(self, *, hangs: bool) -> None:
        super().__init__("never answered" if hangs else "the connection was dropped")
        self.hangs = hangs


class Refused(Exception):
    """An answer that ends the request wherever it has got to."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer[0])
        self.answer = answer


class Delivery(NamedTuple):
    """One POST that the provider owes somebody."""

    address: str
    headers: Mapping[str, str]
    body: bytes


def answered(status: int, content: Mapping[str, Any] | None = None, **headers: str) -> Answer:
    """`content` as JSON; a header's name has `_` for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if content is None:
        return status, named, b""
    return status, {"Content-Type": "application/json; charset=UTF-8", **named}, json.dumps(content).encode()


def content_of(body: bytes) -> dict[str, Any]:
    """A request's JSON object. Raises ValueError."""
    if (body or b"{}").lstrip()[:1] != b"{":
        raise ValueError("not a JSON object")
    return cast(dict[str, Any], json.loads(body or b"{}"))


@dataclass
class Pending(Generic[Fault]):
    """So many requests more that fail in this way; None for any calendar."""

    times: int
    fault: Fault
    calendar: str | None


class Faults(Generic[Fault]):
    """Those to come, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._pending: list[Pending[Fault]] = []

    def add(self, times: int, fault: Fault, calendar: str | None) -> None:
        self._pending.append(Pending(times, fault, calendar))

    def clear(self) -> None:
        self._pending.clear()

    def next_for(self, calendar: str | None, *, unfit: frozenset[Fault]) -> Fault | None:
        """Takes the first that is meant for this request; one in `unfit` waits for another."""
        for pending in self._pending:
            if pending.fault not in unfit and pending.calendar in (None, calendar):
                pending.times -= 1
                if not pending.times:
                    self._pending.remove(pending)
                return pending.fault
        return None
