"""What has arrived and is not read yet, so that a turn of the event loop is over within some milliseconds.

As long as more than a thousand connections have something to say, the event loop asks the system for the next of them, and
all else waits: tasks, timers and PostgreSQL's answers, for two seconds at a time (docs/decisions/0032).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

_AT_ONCE = 256
_PATIENCE_SECONDS = 0.5


class Unread:
    """Who waits to be read, in one of the next turns of the event loop that it is asked on.

    The newest comes first: it was answered a moment ago, so it is still in the processor's caches. But who has waited for
    half a second comes before all others.
    """

    def __init__(self, at_once: int = _AT_ONCE) -> None:
        self._at_once = self._room = at_once
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()

    @property
    def waited_seconds(self) -> float:
        """How long whoever has waited longest has done so; 0 where nobody does."""
        return asyncio.get_running_loop().time() - self._waiting[0][0] if self._waiting else 0.0

    def may_be_read(self, later: Callable[[], None]) -> bool:
        """Whether something may be read in this turn. Else `later`, which must not raise, is called in one that has room."""
        if self._room == self._at_once:
            asyncio.get_running_loop().call_soon(self._next_turn)
        if self._room:
            self._room -= 1
            return True
        self._waiting.append((asyncio.get_running_loop().time(), later))
        return False

    def _next_turn(self) -> None:
        self._room = self._at_once
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        loop.call_soon(self._next_turn)
        overdue = loop.time() - _PATIENCE_SECONDS
        while self._room and self._waiting:
            self._room -= 1
            is_overdue = self._waiting[0][0] <= overdue
            _, read = self._waiting.popleft() if is_overdue else self._waiting.pop()
            read()
