"""A broker in this process that can be cut off from PostgreSQL, and killed.

All of that is done to this one replica, and from outside: what `app` has made is wrapped where it is held, never changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from contextvars import Context, ContextVar, copy_context
from datetime import timedelta
from typing import Any, TypeVar
from weakref import WeakSet

import asyncpg
import httpx
from fastapi import FastAPI

from app.db import Tx
from app.outages import DatabaseUnavailable
from app.statements import Prepared
from tests.broker import ADMIN_KEY, Broker

T = TypeVar("T")
_COMMIT_WITHIN = timedelta(seconds=8)
_COMMIT_WITHIN_AN_OUTAGE = timedelta(seconds=0.05)  # nobody learns more by waiting for it to end
_PATIENCE_SECONDS = 30.0  # with a disk: how slow the machine is must not matter
_home: ContextVar[Replica | None] = ContextVar("home", default=None)


def remembering_home(
    loop: asyncio.AbstractEventLoop, coroutine: Any, *, context: Context | None = None
) -> asyncio.Task[Any]:
    """A loop's task factory: each task belongs to the replica in whose context it was made."""
    task = asyncio.Task(coroutine, loop=loop, context=context)
    home = _home.get() if context is None else context.get(_home)
    if home is not None:
        home.tasks.add(task)
    return task


class Replica:
    """Starts again and again, each time as another one."""

    def __init__(self, number: int, app: FastAPI) -> None:
        self.number = number
        self.is_running = False
        self.has_postgres = True
        self.commits_to_lose = 0  # PostgreSQL does as it is asked, and the answer is lost
        self.tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._starts = 0
        self._app = app
        self._context = copy_context()
        self._lifespan: Any = None

    @property
    def name(self) -> str:
        return f"{self.number}.{self._starts}"

    async def start(self) -> None:
        """Its timetable stands still, which is for whoever calls this to see to."""
        self._starts += 1
        self._context = copy_context()
        self._context.run(_home.set, self)
        self._lifespan = self._app.router.lifespan_context(self._app)
        await self.within(self._lifespan.__aenter__())
        self.services: Any = self._app.state.services
        transport = httpx.ASGITransport(app=self._app, raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        http = httpx.AsyncClient(transport=transport, base_url="http://broker.test", headers=headers)
        self.broker = Broker(self._app, http)
        self.is_running, self.has_postgres, self.commits_to_lose = True, True, 0
        self.services.safekeeping._journal._within = _PATIENCE_SECONDS
        self._wrap_postgres()

    def within(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task of this replica's."""
        return asyncio.get_running_loop().create_task(work, context=self._context)

    async def kill(self) -> None:
        """What SIGKILL does: nothing that it was about to write, send or tidy up happens any more, its connections are
        closed, and the lock of its journal is free."""
        self.is_running = self.has_postgres = False
        await self._let_go_of_journal()
        while running := [task for task in self.tasks if not task.done()]:
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=1)
        await self._lifespan.__aexit__(None, None, None)  # cut off as it is, it only closes what is open
        await self.broker.http.aclose()

    async def _let_go_of_journal(self) -> None:
        journal = self.services.safekeeping._journal
        journal._is_closed = True
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(journal._thread, lambda: journal._writer.close(remove=False))
        journal._thread.shutdown(wait=False)

    def lose_postgres(self) -> None:
        """It cannot reach PostgreSQL, nor hear of it."""
        self.has_postgres = False
        self.listener._heard_at = None
        self.services.safekeeping._ledger._commit_within = _COMMIT_WITHIN_AN_OUTAGE

    def find_postgres(self) -> None:
        """It is back; what was announced meanwhile was missed."""
        self.has_postgres = True
        self.listener._heard()
        self.listener._wake_all()
        self.services.safekeeping._ledger._commit_within = _COMMIT_WITHIN

    def hear(self, *, stood_still: bool) -> None:
        """Time has passed. PostgreSQL has answered all the while, unless nobody was there to ask it."""
        if self.has_postgres and not stood_still:
            self.listener._heard_at = self.services.clock.monotonic()
        self.listener._heard()

    def wake(self) -> None:
        """Whoever waits for a claim to end looks again."""
        for events in self.listener._waiting.values():
            for event in events:
                event.set()

    @property
    def listener(self) -> Any:
        return self.services.safekeeping._listener

    def _wrap_postgres(self) -> None:
        db, listener = self.services.db, self.listener
        begin, notify, heard = db.begin, db.notify, listener._heard
        one, every = db.statements.one, db.statements.all

        @asynccontextmanager
        async def begin_if_reachable() -> AsyncIterator[Tx]:
            self._require_postgres()
            async with begin() as tx:
                yield tx
            self._answer()

        async def one_if_reachable(statement: Prepared, **values: Any) -> asyncpg.Record | None:
            self._require_postgres()
            row: asyncpg.Record | None = await one(statement, **values)
            self._answer()
            return row

        async def all_if_reachable(statement: Prepared, **values: Any) -> list[asyncpg.Record]:
            self._require_postgres()
            rows: list[asyncpg.Record] = await every(statement, **values)
            self._answer()
            return rows

        async def notify_if_reachable(channel: str, payload: str) -> None:
            self._require_postgres()
            await notify(channel, payload)

        def hear_if_reachable() -> None:
            if self.has_postgres:
                heard()

        db.begin, db.notify, listener._heard = begin_if_reachable, notify_if_reachable, hear_if_reachable
        db.statements.one, db.statements.all = one_if_reachable, all_if_reachable

    def _answer(self) -> None:
        if self.commits_to_lose:
            self.commits_to_lose -= 1
            raise DatabaseUnavailable

    def _require_postgres(self) -> None:
        if not self.has_postgres:
            raise DatabaseUnavailable
