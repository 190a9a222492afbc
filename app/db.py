"""PostgreSQL: the engine, transactions, notifications and migrations.

async with db.begin() as tx:      one transaction; commits at the end, rolls back on an error
    await store.something(tx, ...)
await db.notify(channel, payload) after the commit, as a statement of its own: NOTIFY inside a durable
                                  transaction serialises all commits behind one lock
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, timedelta
from typing import Any, TypeVar, cast

import asyncpg
from sqlalchemy import AdaptedConnection, DateTime, event, func, select, text
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry, NullPool

from app import schema
from app.announcements import Announcements
from app.clock import Clock, DatabaseClock
from app.outages import UNANSWERED, DatabaseUnavailable, outages_named
from app.servers import STATEMENTS, Servers, user_of
from app.statements import Statements

Tx = AsyncConnection
T = TypeVar("T")

_PING_SECONDS = 3.0  # with a new connection afterwards it is less than T2 tries for


class Database:
    """Connections to one PostgreSQL: a pool of SQLAlchemy's for transactions, and `statements` for what is asked all the
    time."""

    def __init__(
        self,
        url: str,
        *,
        direct_url: str | None = None,
        migrate_url: str | None = None,
        audit_days: int | None = None,
        pool_size: int = 12,
        hot_size: int = 8,
        command_timeout: float = 8.0,
        pool_timeout: float = 5.0,
    ) -> None:
        """`direct_url`: the same PostgreSQL past the pooler that `url` leads through, if there is one. In transaction mode
        statements prepared in one transaction are unknown to the next, so that none is kept then. `migrate_url`: the same
        one as the role that owns the tables, where that is not the role of `url`. `audit_days`: how long migrations say
        that audit events are kept, 0 for ever; None leaves it as it is."""
        self._direct_url = direct_url or url
        self._migrate_url = migrate_url
        self._user = user_of(url)
        self._audit_days = audit_days
        self._engine = _engine(
            url,
            command_timeout,
            statements=STATEMENTS if self._direct_url == url else 0,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=pool_timeout,
        )
        event.listen(self._engine.sync_engine, "checkout", _require_answer)
        self.statements = Statements(
            Servers(url),
            pooled=self._direct_url != url,
            size=hot_size,
            pool_timeout=pool_timeout,
        )
        self._announcements = Announcements(self.statements)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Tx]:
        """One transaction. Raises DatabaseUnavailable where PostgreSQL cannot be asked."""
        with outages_named():
            async with self._engine.begin() as tx:
                yield tx

    async def announce(self, tx: Tx, channel: str, payload: str) -> None:
        """Wakes the listeners of `channel` with the commit itself, so that no crash comes in between. Commits that do so
        wait for each other: for what is rare, and must not be missed."""
        await tx.execute(select(func.pg_notify(channel, payload)))

    async def notify(self, channel: str, payload: str) -> None:
        """Wakes the listeners of `channel`, outside any transaction, together with what others tell at this moment. Raises
        DatabaseUnavailable."""
        await self._announcements.tell(channel, payload)

    async def await_standby(self, tx: Tx) -> None:
        """Has the commit of `tx`, which has only read, wait for a synchronous standby like a writer's.

        For who draws a conclusion from what was read: a commit that was given up while it waited for the standby can be
        read at the primary, and is lost with it.
        """
        await tx.execute(select(func.pg_logical_emit_message(True, "broker", "")))

    def pool_usage(self) -> tuple[int, int]:
        """Connections in use, and how many there may be."""
        pool = cast(AsyncAdaptedQueuePool, self._engine.pool)
        return pool.checkedout() + self.statements.in_use, pool.size() + self.statements.size

    async def set_clock(self, clock: DatabaseClock) -> None:
        """Sets the clock to PostgreSQL's time, half of the way there and back apart. Raises DatabaseUnavailable."""
        async with self.begin() as tx:
            asked_at = clock.monotonic()
            time = (
                await tx.execute(select(func.clock_timestamp(type_=DateTime(timezone=True))))
            ).scalar_one()
            clock.set(time.astimezone(UTC), at=(asked_at + clock.monotonic()) / 2)

    async def ping(self) -> None:
        """Raises DatabaseUnavailable unless PostgreSQL answers."""
        async with self.begin() as tx:
            await tx.execute(select(1))

    async def migrate(self, revision: str = "head") -> None:
        """Brings the schema to `revision`, and what the service's role may do in it up to date, while others go on. Replicas
        that start at once take turns; one that was interrupted is gone on with; repeating it changes nothing."""
        # A migration may take as long as it takes, which not every pooler allows.
        engine = _engine(self._migrate_url or self._direct_url, None, poolclass=NullPool)
        role = None if self._migrate_url is None else await self._role()
        with outages_named():
            async with engine.connect() as connection:
                await schema.migrate(connection, revision, role=role, audit_days=self._audit_days)

    async def _role(self) -> str:
        """The one that the service has. A pooler may know it by another name than the URL; while it is away that has to do."""
        try:
            async with self.begin() as tx:
                return str((await tx.execute(select(func.current_user()))).scalar_one())
        except DatabaseUnavailable:
            if self._user is None:
                raise
            return self._user

    async def may_alter(self) -> bool:
        """Whether the service's role could change the tables themselves. Raises DatabaseUnavailable."""
        query = text(
            "SELECT bool_or(pg_has_role(relowner, 'usage')) FROM pg_class"
            " WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')"
        )
        async with self.begin() as tx:
            return bool((await tx.execute(query)).scalar_one())

    async def close(self) -> None:
        self.statements.close()
        await self._engine.dispose()


async def insist(work: Callable[[], Awaitable[T]], *, clock: Clock, within: timedelta) -> T:
    """What `work` answers, tried again while PostgreSQL is away. It has to be one that may be repeated.

    For tokens that exist nowhere else yet. Raises DatabaseUnavailable when the time is over.
    """
    try:
        async with asyncio.timeout(within.total_seconds()):
            while True:
                with suppress(DatabaseUnavailable):
                    return await work()
                await clock.sleep(random.uniform(0.1, 0.3))
    except TimeoutError as error:
        raise DatabaseUnavailable from error


def _engine(
    url: str, command_timeout: float | None, *, statements: int = STATEMENTS, **pool: Any
) -> AsyncEngine:
    """asyncpg reads the URL itself, here as in the listener: `sslmode` and the like mean the same to both."""
    servers = Servers(url)

    async def connect() -> asyncpg.Connection:
        return await servers.connect(command_timeout=command_timeout, statement_cache_size=statements)

    # Errors are logged, and parameters may be somebody's data.
    return create_async_engine("postgresql+asyncpg://", async_creator=connect, hide_parameters=True, **pool)


def _require_answer(connection: AdaptedConnection, record: ConnectionPoolEntry, _checked_out: object) -> None:
    """Before a connection of the pool is used again: where it is dead or hangs, so most likely do all others of its age."""
    if record.info.setdefault("is_new", True):
        record.info["is_new"] = False
        return
    try:
        connection.run_async(_ping)
    except UNANSWERED as error:
        raise InvalidatePoolError from error


async def _ping(connection: asyncpg.Connection) -> None:
    try:
        await connection.execute("SELECT 1", timeout=_PING_SECONDS)
    except TimeoutError:
        connection.terminate()  # else it would be asked to end properly, and that waited for too
        raise


def plain_url(url: str) -> str:
    """The URL as PostgreSQL's own clients read it."""
    return url.replace("postgresql+asyncpg://", "postgresql://", 1)
