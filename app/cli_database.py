"""The database of a command: the one that is set, or the private one, and work done in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TypeVar

from app import embedded, embedded_role, main
from app.clock import DatabaseClock
from app.configured import new_database
from app.db import Database
from app.main import Settings

T = TypeVar("T")


@contextmanager
def with_database(read: Settings) -> Iterator[Settings]:
    """The settings with a database: the one that is set, or the private one, started for as long as it is needed."""
    if read.database_url is not None:
        yield read
        return
    with embedded.running(read.data_dir) as url:
        yield read.model_copy(
            update={"database_url": embedded_role.service_url(url), "migrate_database_url": url}
        )


def with_db(work: Callable[[Database], Coroutine[None, None, T]]) -> T:
    return with_db_and_settings(lambda db, _: work(db))


def with_db_and_settings(
    work: Callable[[Database, Settings], Coroutine[None, None, T]], read: Settings | None = None
) -> T:
    async def run(read: Settings) -> T:
        db = new_database(read, pool_size=1)
        try:
            return await work(db, read)
        finally:
            await db.close()

    with with_database(read or main.read_settings()) as settings:
        return asyncio.run(run(settings))


async def clock_of(db: Database) -> DatabaseClock:
    """PostgreSQL's time: what is written here is in order with what replicas write."""
    clock = DatabaseClock()
    await db.set_clock(clock)
    return clock
