"""LISTEN: tells whoever waits in this process that a grant changed, wherever it was changed.

One connection of its own, outside the pool and direct (a pooler in transaction mode forwards no notification). It is
a hint and may be late or missing: whoever waits polls as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from app.clock import Clock
from app.telemetry import logger

log = logger(__name__)

GRANT_CHANGED = "broker_grant_changed"
_RECONNECT_SECONDS = 1.0
_HEARTBEAT_SECONDS = 10.0


class Listener:
    """Keeps one listening connection, and makes another when it is lost."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="listener")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @contextmanager
    def subscribe(self, topic: str) -> Iterator[asyncio.Event]:
        """An event that is set each time `topic` is notified. Subscribe first, then read: nothing slips between."""
        event = asyncio.Event()
        self._waiting.setdefault(topic, set()).add(event)
        try:
            yield event
        finally:
            self._waiting[topic].discard(event)
            if not self._waiting[topic]:
                del self._waiting[topic]

    def _wake(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        for event in self._waiting.get(str(payload), ()):
            event.set()

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("listener.lost", error=type(error).__name__)
            await self._clock.sleep(_RECONNECT_SECONDS)

    async def _listen(self) -> None:
        """Listens until the connection is lost."""
        connection = await asyncpg.connect(self._url, timeout=5, command_timeout=5)
        try:
            await connection.add_listener(GRANT_CHANGED, self._wake)
            self._wake_all()  # what was notified while nobody listened is gone: let everybody look
            while True:
                await self._clock.sleep(_HEARTBEAT_SECONDS)
                await connection.execute("SELECT 1")
        finally:
            connection.terminate()

    def _wake_all(self) -> None:
        for events in self._waiting.values():
            for event in events:
                event.set()
