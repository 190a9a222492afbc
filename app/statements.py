"""The statements that are asked all the time: compiled once, kept prepared, each a transaction of its own.

Stores write them as they write all others, with `given` for what changes, and asyncpg runs them: SQLAlchemy in between
costs several times what they cost themselves (docs/performance.md).

    _FIND = Prepared(select(grants).where(grants.c.id == given("id", UUID())))
    row = await statements.one(_FIND, id=grant_id)
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

import asyncpg
from sqlalchemy import BindParameter, ClauseElement, bindparam
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from app.outages import UNANSWERED, outages_named
from app.servers import STATEMENTS, Servers

_IDLE_SECONDS = 1.0  # after which a connection is tried before it is used
_PING_SECONDS = 3.0
STATEMENT_SECONDS = 3.0  # what T2 may take has room for a second try where the first one hangs

_DIALECT = PGDialect_asyncpg()  # type: ignore[no-untyped-call]


def given(name: str, kind: TypeEngine[Any] | None = None) -> BindParameter[Any]:
    """What is known only when the statement is run."""
    return bindparam(name, type_=kind, required=False)


class Prepared:
    """A statement as PostgreSQL is asked it. What is not `given` is written into it once."""

    def __init__(self, statement: ClauseElement) -> None:
        compiled = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
        assert isinstance(compiled, SQLCompiler)
        self.text = compiled.string
        self._names = tuple(compiled.positiontup or ())
        self._fixed: Mapping[str, Any] = {
            name: value for name, value in compiled.params.items() if not _is_given(compiled, name)
        }

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """What is given and what is fixed, in the statement's order. Raises KeyError where something lacks."""
        every = {**self._fixed, **values}
        return [every[name] for name in self._names]


def _is_given(compiled: SQLCompiler, name: str) -> bool:
    return name in compiled.binds and not compiled.binds[name].unique


class Statements:
    """Connections of their own, made as they are needed, the one used last first."""

    def __init__(self, servers: Servers, *, pooled: bool, size: int, pool_timeout: float) -> None:
        """`pooled`: a pooler in transaction mode is in between. No statement can be kept prepared then, and each needs a
        transaction around it to be parsed and run on one connection."""
        self._servers = servers
        self._pooled = pooled
        self._pool_timeout = pool_timeout
        self.size = size
        self.in_use = 0
        self._room = asyncio.Semaphore(size)
        self._idle: list[tuple[asyncpg.Connection, float]] = []  # and when each was last seen to answer

    async def one(self, statement: Prepared, **values: Any) -> asyncpg.Record | None:
        """Its first row, committed. Raises DatabaseUnavailable, after which it may have been committed or not."""
        rows = await self.all(statement, **values)
        return rows[0] if rows else None

    async def all(self, statement: Prepared, **values: Any) -> list[asyncpg.Record]:
        """Its rows, committed. Raises DatabaseUnavailable, after which it may have been committed or not."""
        with outages_named():
            await self._enter()
            try:
                return await self._run(statement.text, statement.arguments(values))
            finally:
                self.in_use -= 1
                self._room.release()

    def close(self) -> None:
        """Ends those that nobody uses: where one is dead or hangs, so most likely do all others of its age; and when the
        service ends it uses none any more."""
        while self._idle:
            self._idle.pop()[0].terminate()

    async def _run(self, text: str, arguments: Sequence[Any]) -> list[asyncpg.Record]:
        connection = await self._taken()
        try:
            rows: list[asyncpg.Record]
            if self._pooled:
                async with connection.transaction():
                    rows = await connection.fetch(text, *arguments)
            else:
                rows = await connection.fetch(text, *arguments)
        except asyncpg.PostgresError:
            self._keep(connection)
            raise
        except BaseException as error:
            connection.terminate()  # what it still has to say nobody would read
            if isinstance(error, OSError):
                self.close()
            raise
        self._keep(connection)
        return rows

    async def _enter(self) -> None:
        if self._room.locked():
            async with asyncio.timeout(self._pool_timeout):
                await self._room.acquire()
        else:
            await self._room.acquire()
        self.in_use += 1

    async def _taken(self) -> asyncpg.Connection:
        while self._idle:
            connection, answered_at = self._idle.pop()
            if connection.is_closed():
                continue
            if monotonic() - answered_at < _IDLE_SECONDS or await _answers(connection):
                return connection
            self.close()
        return await self._connected()

    def _keep(self, connection: asyncpg.Connection) -> None:
        if not connection.is_closed():
            self._idle.append((connection, monotonic()))

    async def _connected(self) -> asyncpg.Connection:
        kept = 0 if self._pooled else STATEMENTS
        connection = await self._servers.connect(command_timeout=STATEMENT_SECONDS, statement_cache_size=kept)
        try:
            for name in ("json", "jsonb"):
                await connection.set_type_codec(
                    name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
                )
        except BaseException:
            connection.terminate()
            raise
        return connection


async def _answers(connection: asyncpg.Connection) -> bool:
    try:
        await connection.execute("SELECT 1", timeout=_PING_SECONDS)
    except BaseException as error:
        connection.terminate()  # else it would be asked to end properly, and that waited for too
        if isinstance(error, UNANSWERED):
            return False
        raise
    return True
