"""Dictionaries of bounded size."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Bounded(dict[K, V]):
    """Forgets what was put first. Reading costs what it costs in a dictionary, since it is not noted."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def put(self, key: K, value: V) -> None:
        """It is the last one now."""
        self.pop(key, None)
        self[key] = value
        if len(self) > self._size:  # some more at once: finding the first one costs as much as finding many
            for first in list(islice(self, 1 + self._size // 100)):
                del self[first]


class Recurring(Generic[K, V]):
    """Keeps what is put twice. What comes once pushes out nothing but other things that came once."""

    def __init__(self, size: int) -> None:
        self._kept: Bounded[K, V] = Bounded(size)
        self._once: Bounded[K, None] = Bounded(size)

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K) -> V | None:
        return self._kept.get(key)

    def put(self, key: K, value: V) -> None:
        if key in self._once:
            del self._once[key]
            self._kept.put(key, value)
        else:
            self._once.put(key, None)
