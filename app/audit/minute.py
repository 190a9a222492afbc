"""`Minute`: what was given in it, and how often since the trail was told of it last."""

from __future__ import annotations

from array import array
from collections import deque
from typing import NamedTuple

from app.audit.event import Disclosure


class Given(NamedTuple):
    """So many times something was given, from when to when, by the monotonic clock."""

    times: int
    first: float
    last: float


class Minute:
    """There may be 100,000 in it, so their numbers are in arrays: an object for each is five times as large, and they would
    come and go among all else that is in memory."""

    def __init__(self) -> None:
        self._places: dict[Disclosure, int] = {}  # in the arrays
        self._counts = array("Q")
        self._firsts = array("d")
        self._lasts = array("d")

    def __len__(self) -> int:
        return len(self._places)

    def begin(self, disclosure: Disclosure, times: int, now: float) -> None:
        """Given so many times, for the first time."""
        self._places[disclosure] = len(self._counts)
        self._counts.append(times)
        self._firsts.append(now)
        self._lasts.append(now)

    def again(self, disclosure: Disclosure, times: int, now: float) -> bool:
        """Given so many times more; False where it was not given before."""
        place = self._places.get(disclosure)
        if place is None:
            return False
        if not self._counts[place]:
            self._firsts[place] = now
        self._counts[place] += times
        self._lasts[place] = now
        return True

    def take(self, disclosure: Disclosure) -> Given:
        """What the trail is to be told of it, and has been told by that."""
        place = self._places[disclosure]
        given = Given(self._counts[place], self._firsts[place], self._lasts[place])
        self._counts[place] = 0
        return given

    def untold(self) -> deque[Disclosure]:
        """Of which there is something to tell."""
        return deque(disclosure for disclosure, place in self._places.items() if self._counts[place])
