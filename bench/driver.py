"""`python -m bench.driver`: the process that sends. Reads a load a line, as JSON; answers `connected`, waits for `go`, sends,
and answers the outcome, or an error.

So whoever measures reads the clocks of the processes between the connecting and the first request, and after the last answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict

import uvloop

from bench.client import Connection, Unreadable
from bench.load import PLACEHOLDER, Load, Outcome, Tally

_TICK_SECONDS = 0.001
_MADE_A_TICK = 4  # connections: faster, and a queue of those not accepted yet overflows, which costs each of them seconds
_PATIENCE_SECONDS = 30.0  # with the last answers of a closed loop


class LoadFailed(Exception):
    """An answer was not what it had to be; or there was none."""


class Sending:
    """One load, sent."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._tally = Tally(load.in_time)
        self._next = _requests(load)
        self._connections: set[Connection] = set()
        self._opening = 0
        self._idle: list[Connection] = []
        self._waiting: deque[float] = deque()  # times of requests that found no connection
        self._under_way = 0
        self._began = 0.0
        self._ends = 0.0
        self._over = self._loop.create_future()

    async def connect(self) -> None:
        """In small groups: a backlog that overflows would cost a second."""
        wanted = self._load.connections if self._load.connects_first is None else self._load.connects_first
        while (missing := wanted - len(self._connections)) > 0 and not self._over.done():
            await asyncio.gather(*(self._open() for _ in range(min(64, missing))))

    async def run(self) -> Outcome:
        """Sends it. Raises LoadFailed."""
        self._began = time.perf_counter()
        self._ends = self._began + self._load.seconds
        patience = _PATIENCE_SECONDS if self._load.rate is None else self._load.in_time
        self._loop.call_later(self._load.seconds + patience, self._abandon)
        if self._load.rate is None:
            for connection in list(self._idle):
                self._send_next(connection)
        else:
            self._tick()
        await self._over
        return self._tally.outcome(time.perf_counter() - self._began)

    def close(self) -> None:
        for connection in list(self._connections):
            connection.close()

    def answered(self, connection: Connection, status: int, *, retry_after: bool) -> None:
        now, due_at = time.perf_counter(), connection.due_at
        assert due_at is not None
        connection.due_at = None
        self._under_way -= 1
        self._tally.statuses[status] += 1
        if 200 <= status < 300:
            self._tally.good.append((now - self._began, now - due_at))
        elif status in (429, 503) and not retry_after:
            self._tally.unsaid += 1
        if status not in self._load.accepts:
            told = connection.last_answer.decode(errors="replace")
            self.fail(LoadFailed(f"{self._load.method} {self._load.path} was answered {status}: {told}"))
        elif connection.is_open:
            self._go_on(connection, now)
        self._end_if_over(now)

    def ended(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if self._over.done():
            return
        if connection.due_at is not None:
            self._under_way -= 1
            self._tally.lost += 1
            if not self._load.may_lose:
                self.fail(LoadFailed("A connection ended before its answer"))
        self._end_if_over(time.perf_counter())

    def fail(self, error: Exception) -> None:
        if not self._over.done():
            self._over.set_exception(error)

    async def _open(self) -> None:
        self._opening += 1
        try:
            _, connection = await self._loop.create_connection(
                lambda: Connection(self), "127.0.0.1", self._load.port
            )
        except OSError as error:
            if not self._load.may_lose:
                self.fail(LoadFailed(f"No connection: {error}"))
            return
        finally:
            self._opening -= 1
        self._connections.add(connection)
        if self._began and self._load.rate is not None:
            self._go_on(connection, time.perf_counter())
        else:
            self._idle.append(connection)

    def _go_on(self, connection: Connection, now: float) -> None:
        if self._load.rate is None:
            self._send_next(connection)
            return
        self._give_up(now)
        if self._waiting and now < self._ends:
            self._send(connection, self._waiting.popleft())
        else:
            self._idle.append(connection)

    def _send_next(self, connection: Connection) -> None:
        now = time.perf_counter()
        if now < self._ends and self._tally.offered != self._load.most:
            self._tally.offered += 1
            self._send(connection, now)

    def _send(self, connection: Connection, due_at: float) -> None:
        self._under_way += 1
        connection.send(self._next(), due_at)

    def _tick(self) -> None:
        """All requests whose time has come, however late this is called."""
        now, rate = time.perf_counter(), self._load.rate
        assert rate is not None
        due = min(int(rate * (now - self._began)) + 1, round(rate * self._load.seconds))
        for number in range(self._tally.offered, due):
            self._offer(self._began + number / rate)
        self._give_up(now)
        missing = min(len(self._waiting), self._load.connections - len(self._connections)) - self._opening
        for _ in range(min(missing, _MADE_A_TICK)):
            self._loop.create_task(self._open())
        if now < self._ends:
            self._loop.call_later(_TICK_SECONDS, self._tick)
        else:
            self._tally.given_up += len(self._waiting)
            self._waiting.clear()
            self._end_if_over(now)

    def _offer(self, due_at: float) -> None:
        self._tally.offered += 1
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                self._send(connection, due_at)
                return
        self._waiting.append(due_at)

    def _give_up(self, now: float) -> None:
        while self._waiting and now - self._waiting[0] > self._load.patience:
            self._waiting.popleft()
            self._tally.given_up += 1

    def _abandon(self) -> None:
        """What has no answer by now gets none."""
        if self._over.done():
            return
        self._tally.left += self._under_way
        if self._load.may_lose:
            self._over.set_result(None)
        else:
            self.fail(LoadFailed(f"{self._under_way} requests were not answered"))

    def _end_if_over(self, now: float) -> None:
        is_sent = now >= self._ends or (self._tally.offered == self._load.most and not self._waiting)
        if is_sent and not self._under_way and not self._over.done():
            self._over.set_result(None)


def _requests(load: Load) -> Callable[[], bytes]:
    """Each the request of the next user."""
    whole = load.head()
    if PLACEHOLDER not in load.path:
        return lambda: whole
    before, _, after = whole.partition(PLACEHOLDER.encode())
    number = load.first - 1

    def request() -> bytes:
        nonlocal number
        number += 1
        return b"%b%d%b" % (before, number % load.users, after)

    return request


async def drive(load: Load, connected: Callable[[], None], go: Callable[[], object]) -> Outcome:
    """`connected` is called when it could begin, and then `go`, which returns when it shall. Raises LoadFailed."""
    sending = Sending(load)
    try:
        await sending.connect()
        connected()
        await asyncio.to_thread(go)
        return await sending.run()
    finally:
        sending.close()


def _say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    for line in iter(sys.stdin.readline, ""):
        load = Load(**json.loads(line))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                outcome = runner.run(drive(load, lambda: _say("connected"), sys.stdin.readline))
            except (LoadFailed, Unreadable, OSError) as error:
                _say({"error": str(error) or type(error).__name__})
            else:
                _say(asdict(outcome))


if __name__ == "__main__":
    main()
