"""Those of this replica who wait for the same limit, first come first served, and the turns that are reserved for them.

take   a turn that is here for the taking: a comparison
wait   in line; turns are reserved for all who stand in it, by one statement, and handed out as their time comes
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from app.apis.window import AHEAD, SECOND, Reserved
from app.clock import Clock
from app.resilience import Rate

_AHEAD_SECONDS = AHEAD / SECOND
_PACE_SECONDS = 1.0  # after which a call counts for a third
_STEADY_SECONDS = 30.0

# For so many who wait, at such a pace just now and in the long run, by one who is so many seconds late: what is reserved, by
# the monotonic clock.
Reserve = Callable[[int, float, float, float], Awaitable[Reserved]]


class TooLong(Exception):
    """The turn would come in `seconds`, which is later than it can be waited for."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = max(0.0, seconds)


@dataclass
class _Turn:
    at: float
    until: float
    count: int


@dataclass(frozen=True)
class _Waiter:
    since: float
    until: float


class Turns:
    """All of its methods run on one event loop."""

    def __init__(self, rates: Sequence[Rate], reserve: Reserve, clock: Clock) -> None:
        self.rates = rates
        self._reserve = reserve
        self._clock = clock
        self._shortest = min(rates, key=lambda rate: rate.per_seconds)
        self._turns: deque[_Turn] = deque()  # by time
        self._waiting: OrderedDict[asyncio.Future[_Turn], _Waiter] = OrderedDict()
        self._held_until = 0.0
        self._freed = 0  # times
        self._ask_at = 0.0
        self._next_at = 0.0  # when one more may be reserved for who has none; as far as is known
        self._sharers = 1
        self._taken, self._pace, self._steady, self._paced_at = 0, 0.0, 0.0, clock.monotonic()
        self._late = 0.0  # seconds, when a turn was lost by it
        self._woken = asyncio.Event()
        self._tending: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None

    def take(self) -> bool:
        """Whether one was here for the taking. Nobody is passed by."""
        return not self._waiting and self._taken_turn(self._clock.monotonic()) is not None

    async def wait(self, within: float) -> None:
        """Until it is its turn. Raises TooLong, at once where that is known."""
        now = self._clock.monotonic()
        expected = self._expected(len(self._waiting)) - now
        if expected > within:
            raise TooLong(expected)
        mine: asyncio.Future[_Turn] = asyncio.get_running_loop().create_future()
        self._waiting[mine] = _Waiter(now, now + within)
        self._tend()
        try:
            async with asyncio.timeout(within):
                await mine
        except BaseException as error:
            self._leave(mine)
            if isinstance(error, TimeoutError):
                raise TooLong(self._expected(len(self._waiting)) - self._clock.monotonic()) from None
            raise

    def hold(self, until: float) -> None:
        """Nobody goes before that, whatever was said before."""
        if until == self._held_until:
            return
        if until < self._held_until:
            self.free()
        self._held_until = until
        self._turns = deque(turn for turn in self._turns if turn.until > until)
        self._ask_at = max(self._ask_at, until - _AHEAD_SECONDS / 2)
        self._send_away()
        self._woken.set()

    def free(self) -> None:
        """Nothing holds any more."""
        self._held_until = self._ask_at = self._next_at = 0.0
        self._freed += 1
        self._woken.set()

    async def close(self) -> None:
        for mine in self._waiting:
            if not mine.done():
                mine.set_exception(TooLong(0))
        for task in (self._tending, self._asking):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _taken_turn(self, now: float) -> _Turn | None:
        """One call's, if its time is now."""
        turns = self._turns
        while turns:
            first = turns[0]
            if now >= first.until:
                turns.popleft()
            elif now < first.at or now < self._held_until:
                return None
            else:
                first.count -= 1
                if not first.count:
                    turns.popleft()
                self._taken += 1
                return first
        return None

    def _leave(self, mine: asyncio.Future[_Turn]) -> None:
        """Somebody waits no longer; where it was its turn already, that is the next one's."""
        if mine.done() and not mine.cancelled() and mine.exception() is None:
            turn = mine.result()
            self._taken -= 1
            self._turns.appendleft(_Turn(turn.at, turn.until, 1))
        self._waiting.pop(mine, None)
        self._woken.set()

    def _tend(self) -> None:
        self._woken.set()
        if self._tending is None or self._tending.done():
            self._tending = asyncio.create_task(self._tended())

    async def _tended(self) -> None:
        """Hands out turns and has more reserved, as long as somebody waits."""
        while True:
            self._woken.clear()
            now = self._clock.monotonic()
            self._hand_out(now)
            if not self._waiting:
                return
            wake_at = math.inf if not self._turns else max(self._turns[0].at, self._held_until)
            if self._lacking() and self._asking is None:
                if now >= self._ask_at:
                    self._asking = asyncio.create_task(self._ask())
                else:
                    wake_at = min(wake_at, self._ask_at)
            with suppress(TimeoutError):
                async with asyncio.timeout(None if wake_at == math.inf else wake_at - now):
                    await self._woken.wait()

    def _hand_out(self, now: float) -> None:
        while self._waiting:
            mine, waiter = next(iter(self._waiting.items()))
            if not mine.done():
                if self._turns and waiter.since < self._turns[0].until <= now:
                    self._late = max(self._late, now - self._turns[0].at)
                turn = self._taken_turn(now)
                if turn is None:
                    return
                mine.set_result(turn)
            del self._waiting[mine]

    def _lacking(self) -> int:
        return max(0, len(self._waiting) - sum(turn.count for turn in self._turns))

    async def _ask(self) -> None:
        try:
            self._measure(self._clock.monotonic())
            freed = self._freed
            reserved = await self._reserve(self._lacking(), self._pace, self._steady, self._late)
            self._late /= 2
            # When there is another one was said before the pause was ended, and may be its end.
            self._keep(reserved if freed == self._freed else replace(reserved, next_at=None))
        finally:
            self._asking = None
            self._woken.set()

    def _measure(self, now: float) -> None:
        """Calls a second, those of late above all."""
        since = now - self._paced_at
        self._pace = self._pace * math.exp(-since / _PACE_SECONDS) + self._taken / _PACE_SECONDS
        self._steady = self._steady * math.exp(-since / _STEADY_SECONDS) + self._taken / _STEADY_SECONDS
        self._taken, self._paced_at = 0, now

    def _keep(self, reserved: Reserved) -> None:
        now = self._clock.monotonic()
        self._turns.extend(
            _Turn(turn.at / SECOND, turn.until / SECOND, turn.count) for turn in reserved.turns
        )
        self._sharers = reserved.sharers
        self._ask_at = self._next_at = 0.0
        if reserved.next_at is not None:
            self._next_at = reserved.next_at / SECOND
            # Others ask as well, and what comes until then is asked for together.
            soonest = now + _AHEAD_SECONDS * random.uniform(0.2, 0.3)
            self._ask_at = max(soonest, self._next_at - _AHEAD_SECONDS / 2)
            self._send_away()

    def _send_away(self) -> None:
        """Those who would wait in vain."""
        staying: OrderedDict[asyncio.Future[_Turn], _Waiter] = OrderedDict()
        for mine, waiter in self._waiting.items():
            expected = self._expected(len(staying))
            if expected <= waiter.until:
                staying[mine] = waiter
            elif not mine.done():
                mine.set_exception(TooLong(expected - self._clock.monotonic()))
        self._waiting = staying

    def _expected(self, place: int) -> float:
        """The soonest time for who stands behind `place` others."""
        soonest = max(self._held_until, self._clock.monotonic())
        for turn in self._turns:
            place -= turn.count
            if place < 0:
                return max(soonest, turn.at)
        spans = [place // rate.limit * rate.per_seconds for rate in self.rates]
        shared = place * self._sharers // self._shortest.limit * self._shortest.per_seconds
        return max(soonest, self._next_at) + max(shared if self._next_at else 0, *spans)
