"""`Minute`: what was given in it, and what of that the trail has not been told."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from app.audit.event import Disclosure

SECONDS = 60
# Of a number that says how often something was given, and the milliseconds from the minute's beginning to the first and last
# of those. There may be 100,000 such numbers: an object for each takes five times their memory.
_BITS = 16
_MASK = (1 << _BITS) - 1


class Given(NamedTuple):
    """Something was given so many times, from when to when by the monotonic clock."""

    times: int
    first: float
    last: float


class Minute:
    """One that began then by the monotonic clock, and lasts for `SECONDS` at most."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._numbers: dict[Disclosure, int] = {}  # 0 where the trail has been told
        # What was given for the first time, by that request.
        self._fresh: deque[tuple[Disclosure, str | None]] = deque()
        self._rest: deque[Disclosure] = deque()  # once it has ended

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def waiting(self) -> int:
        """How many are to be told by now, at most."""
        return len(self._fresh) + len(self._rest)

    def begin(self, disclosure: Disclosure, times: int, request_id: str | None, now: float) -> None:
        """Given so many times, for the first time."""
        self._numbers[disclosure] = self._number(Given(times, now, now))
        self._fresh.append((disclosure, request_id))

    def again(self, disclosure: Disclosure, times: int, now: float) -> bool:
        """Given so many times more; False where it was not given before."""
        number = self._numbers.get(disclosure)
        if number is None:
            return False
        before = self._given(number) if number else Given(0, now, now)
        self._numbers[disclosure] = self._number(Given(before.times + times, before.first, now))
        return True

    def end(self) -> None:
        """From now on it tells also of what was given again."""
        self._rest.extend(disclosure for disclosure, number in self._numbers.items() if number)

    def told(self) -> Iterator[tuple[Disclosure, str | None, Given]]:
        """What the trail is to be told by now, and has been told by that: what was given, by which request if that was the
        first one, and how often since the trail was told before."""
        while self._fresh:
            disclosure, request_id = self._fresh.popleft()
            yield disclosure, request_id, self._taken(disclosure)
        while self._rest:
            disclosure = self._rest.popleft()
            if self._numbers[disclosure]:
                yield disclosure, None, self._taken(disclosure)

    def _taken(self, disclosure: Disclosure) -> Given:
        given = self._given(self._numbers[disclosure])
        self._numbers[disclosure] = 0
        return given

    def _number(self, given: Given) -> int:
        first, last = (int((at - self._began) * 1000) & _MASK for at in (given.first, given.last))
        return given.times << 2 * _BITS | first << _BITS | last

    def _given(self, number: int) -> Given:
        first, last = number >> _BITS & _MASK, number & _MASK
        return Given(number >> 2 * _BITS, self._began + first / 1000, self._began + last / 1000)
