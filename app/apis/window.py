"""How often an API may be asked, as a sliding window, and turns in time that are reserved in it. Pure; times are microseconds.

A window is a hundred cells of time. A call is counted in the last cell in which it may be made, and one more may be made once
all that are counted from a hundred cells before it on are fewer than the limit. So in no span of `per_seconds` are more calls made
than `limit`, whoever reserved them and in whatever order: of any such span the call that was reserved last has had all others of
it counted against it.

Nothing is dripped: who has asked nothing for a while may ask `limit` times at once, and then waits until those are a window old.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from app.resilience import Rate

SECOND = 1_000_000
CELLS = 100
AHEAD = 1 * SECOND  # turns are reserved so far ahead: a replica that dies takes no more with it
_SPARE_AT_MOST = 2 * SECOND  # may what nobody waits for yet be kept
_KEPT_AT_MOST = 60 * SECOND  # the same, where the limit is hardly used
_KEPT_AT_LEAST = 2  # calls: who makes one makes another
_TURN_AT_MOST = 1 * SECOND
_LATE_AT_MOST = 1 * SECOND
_FURTHEST = AHEAD + _SPARE_AT_MOST  # is anything reserved, but for what is kept for long
_AT_WORK = 3 * SECOND  # who asked so lately has a share
_SEEN = 600 * SECOND


@dataclass(frozen=True)
class Turn:
    """`count` calls may be made from `at` until before `until`."""

    at: int
    until: int
    count: int


@dataclass(frozen=True)
class Window:
    """`counts`: calls by the last cell in which they may be made."""

    rate: Rate
    counts: Mapping[int, int] = field(default_factory=dict)

    def cell(self, at: int) -> int:
        return at * CELLS // (self.rate.per_seconds * SECOND)

    def beginning(self, cell: int) -> int:
        return -(-cell * self.rate.per_seconds * SECOND // CELLS)

    def used(self, at: int) -> int:
        """What counts against a call at that time."""
        first = self.cell(at) - CELLS
        return sum(count for cell, count in self.counts.items() if cell >= first)

    def earliest(self, at: int) -> tuple[int, int]:
        """When one more may be made, not before `at`; and how many may be made then."""
        used = self.used(at)
        for cell in sorted(cell for cell in self.counts if cell >= self.cell(at) - CELLS):
            if used < self.rate.limit:
                break
            used -= self.counts[cell]
            at = self.beginning(cell + CELLS + 1)
        return at, self.rate.limit - used

    def counting(self, turn: Turn) -> Window:
        cell = self.cell(turn.until - 1)
        return replace(self, counts={**self.counts, cell: self.counts.get(cell, 0) + turn.count})

    def at(self, now: int) -> Window:
        """Without what is over. What is counted further ahead than anything is reserved counts from now on: the clock was
        set back."""
        first, last = self.cell(now) - CELLS, self.cell(now + _FURTHEST)
        ahead = sum(count for cell, count in self.counts.items() if cell > last)
        if ahead <= self.rate.limit // 10:  # no more than what is kept for long
            last = self.cell(now + _KEPT_AT_MOST)
        counts: dict[int, int] = {}
        for cell, count in self.counts.items():
            if cell >= first:
                counts[min(cell, last)] = counts.get(min(cell, last), 0) + count
        return replace(self, counts=counts)

    @property
    def void_at(self) -> int:
        return self.beginning(max(self.counts) + CELLS + 1) if self.counts else 0


@dataclass(frozen=True)
class Book:
    """The windows of one registration, or of one grant; who has reserved in them, and when last. `held_until`: the provider
    has asked for a pause."""

    windows: tuple[Window, ...] = ()
    askers: Mapping[str, int] = field(default_factory=dict)
    held_until: int = 0

    def at(self, now: int) -> Book:
        askers = {name: then for name, then in self.askers.items() if now - _SEEN < then <= now}
        return replace(self, windows=tuple(window.at(now) for window in self.windows), askers=askers)

    def counting(self, turn: Turn) -> Book:
        return replace(self, windows=tuple(window.counting(turn) for window in self.windows))

    def asked_by(self, name: str, now: int) -> Book:
        return replace(self, askers={**self.askers, name: now})

    @property
    def void_at(self) -> int:
        """From then on it says nothing that an empty one does not."""
        return max([self.held_until, *(window.void_at for window in self.windows)])


@dataclass(frozen=True)
class Demand:
    """What a replica wants: turns for `waiting` calls, and some for those that come next, of which there are `pace` a second
    just now and `steady` a second in the long run. `late`: how long it takes until it can make use of one."""

    by: str
    waiting: int
    pace: float = 0.0
    late: int = 0
    steady: float = 0.0


@dataclass(frozen=True)
class Reserved:
    """`turns` by time. `next_at`: when there is another one, where they are fewer than were waited for. `sharers`: replicas that
    asked lately; `seen`: those of ten minutes."""

    turns: tuple[Turn, ...] = ()
    next_at: int | None = None
    sharers: int = 1
    seen: int = 1

    def moved(self, by: int, *, late: int) -> Reserved:
        """By another clock, which shows `by` more; ends come `late` sooner."""
        turns = tuple(Turn(turn.at + by, turn.until + by - late, turn.count) for turn in self.turns)
        return replace(self, turns=turns, next_at=None if self.next_at is None else self.next_at + by)


def reserve(books: Sequence[Book], now: int, demand: Demand) -> tuple[tuple[Book, ...], Reserved]:
    """The books with what is reserved in all of them, and that."""
    kept = tuple(book.at(now).asked_by(demand.by, now) for book in books)
    askers = {name: then for book in kept for name, then in book.askers.items()}
    sharers = sum(then > now - _AT_WORK for then in askers.values())
    kept, turns, next_at = _queued(kept, now, demand, _share(kept, sharers))
    if next_at is None and (spare := _spare(kept, now, demand)) is not None:
        kept = _counting(kept, spare)
        turns = (*turns, spare)
    return kept, Reserved(turns, next_at, sharers, len(askers))


def _queued(
    books: tuple[Book, ...], now: int, demand: Demand, share: int
) -> tuple[tuple[Book, ...], tuple[Turn, ...], int | None]:
    """Turns for those who wait, in time; of those that are not now, no more than a share."""
    turns: tuple[Turn, ...] = ()
    waiting, lasting = demand.waiting, _lasting(books, demand)
    at, room = _earliest(books, max(now, *(book.held_until for book in books)))
    while waiting:
        count = min(waiting, room) if at <= now else min(waiting, room, share)
        if at > now + AHEAD or not count:
            return books, turns, at
        turn = Turn(at, at + lasting, count)
        books = _counting(books, turn)
        turns = (*turns, turn)
        waiting -= count
        share -= 0 if at <= now else count
        at, room = _earliest(books, at)
    return books, turns, None


def _spare(books: tuple[Book, ...], now: int, demand: Demand) -> Turn | None:
    """What is kept for those who come next: for a minute, where at most a tenth of the limit is used; for long, where it is at
    most half; for a moment, where there is less. Never more than a quarter of what is left."""
    at, room = _earliest(books, max(now, *(book.held_until for book in books)))
    if at > now:
        return None
    windows = [window for book in books for window in book.windows]
    unused = min(window.rate.limit // 10 - window.used(now) for window in windows)
    kept = min(_KEPT_AT_LEAST + int(demand.steady * _KEPT_AT_MOST / SECOND), unused // 2)
    if kept > 0 and kept >= int(demand.pace * _SPARE_AT_MOST / SECOND):
        return Turn(now, now + _KEPT_AT_MOST, kept)
    plenty = min(window.rate.limit // 2 - window.used(now) for window in windows)
    shortest = min(window.rate.per_seconds for window in windows) * SECOND
    for lasting, most in ((min(shortest, _SPARE_AT_MOST), plenty // 2), (_lasting(books, demand), room // 4)):
        if (count := min(int(demand.pace * lasting / SECOND), most)) > 0:
            return Turn(now, now + lasting, count)
    return None


def _earliest(books: Sequence[Book], at: int) -> tuple[int, int]:
    """When all windows have room, and for how many."""
    windows = [window for book in books for window in book.windows]
    while True:
        found = [window.earliest(at) for window in windows]
        latest = max(then for then, _ in found)
        if latest <= at:
            return at, min(room for _, room in found)
        at = latest


def _counting(books: Sequence[Book], turn: Turn) -> tuple[Book, ...]:
    return tuple(book.counting(turn) for book in books)


def _lasting(books: Sequence[Book], demand: Demand) -> int:
    """How long a turn is good: what comes later has lost it. What it is costs as much of the rate."""
    shortest = min(window.rate.per_seconds for book in books for window in book.windows)
    return min(_TURN_AT_MOST, shortest * SECOND * 95 // 1000) + min(demand.late, _LATE_AT_MOST)


def _share(books: Sequence[Book], sharers: int) -> int:
    shortest = min(
        (window.rate for book in books for window in book.windows), key=lambda rate: rate.per_seconds
    )
    return max(1, -(-shortest.limit // max(1, sharers)))
