"""Looks at a world while callers ask: at the provider's tokens before it forgets them, at journals before they are emptied,
and at PostgreSQL's connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime

import asyncpg

from tests.faults.processes import is_stopped
from tests.faults.supervisor import World

LOOK_SECONDS = 2.0  # often enough that the provider forgets no access token between two looks
SAMPLE_SECONDS = 0.5
JOURNAL_SECONDS = 0.1  # entries that a commit follows at once are seen by chance, those that wait for it all
_PROMPT_SECONDS = 0.5  # a question that took longer met a PostgreSQL that was stopped, or away
_IDLE = """
SELECT clock_timestamp() AS now,
       coalesce(max(extract(epoch FROM clock_timestamp() - greatest(state_change, $1))), 0)::float AS longest
FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'
"""


class Watch:
    """`idle_in_transaction_seconds`: the longest that was seen, counted from when all processes last began to run."""

    def __init__(self, world: World) -> None:
        self.idle_in_transaction_seconds = 0.0
        self._world = world
        self._steady_since: datetime | None = None

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """For the length of the block."""
        tasks = [asyncio.create_task(work()) for work in (self._look, self._read, self._sample)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(ended, Exception):  # what was not watched proves nothing
                    raise ended

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(self._world.authorization_server.look)

    async def _read(self) -> None:
        while True:
            await asyncio.sleep(JOURNAL_SECONDS)
            await asyncio.to_thread(self._world.journals.look)

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            seconds = await self._idle_seconds()
            self.idle_in_transaction_seconds = max(self.idle_in_transaction_seconds, seconds)

    async def _idle_seconds(self) -> float:
        """How long a connection has been idle in its transaction; 0 where that could not be told."""
        before, self._steady_since = self._steady_since, None
        if any(map(is_stopped, self._world.pids())):
            return 0.0
        asked_at = time.monotonic()
        with suppress(TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            [row] = await self._world.postgres.query(_IDLE, before)
            if time.monotonic() - asked_at < _PROMPT_SECONDS:
                self._steady_since = before or row["now"]
                return float(row["longest"]) if before is not None else 0.0
        return 0.0
