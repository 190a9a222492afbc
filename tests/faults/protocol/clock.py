"""One time for everybody: PostgreSQL, the replicas' clocks and the provider pass it together, as far as they are told to.

Event loops keep the real one, so no timer fires because an hour has passed.
"""

from __future__ import annotations

import asyncio
import time

import asyncpg

from app.clock import DatabaseClock

_SHORT, _AT_ONCE = 0.5, 0.005
# What is called without a schema is looked for in `world` first; column defaults name theirs, so they are set anew.
_INSTALL = """
CREATE SCHEMA world;
CREATE TABLE world.ahead AS SELECT interval '0' AS ahead;
CREATE FUNCTION world.clock_timestamp() RETURNS timestamptz LANGUAGE sql
    AS 'SELECT pg_catalog.clock_timestamp() + ahead FROM world.ahead';
CREATE FUNCTION world.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
    AS 'SELECT pg_catalog.statement_timestamp() + ahead FROM world.ahead';
CREATE FUNCTION world.now() RETURNS timestamptz LANGUAGE sql STABLE
    AS 'SELECT pg_catalog.now() + ahead FROM world.ahead';
DO $$
DECLARE found record;
BEGIN
    EXECUTE format('ALTER DATABASE %I SET search_path = world, public, pg_catalog', current_database());
    FOR found IN SELECT table_name, column_name FROM information_schema.columns
        WHERE table_schema = 'public' AND column_default = 'clock_timestamp()'
    LOOP
        EXECUTE format('ALTER TABLE %I ALTER %I SET DEFAULT world.clock_timestamp()', found.table_name, found.column_name);
    END LOOP;
END $$;
"""


class Time:
    """Real time, and what has passed beyond it."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def time(self) -> float:
        """Seconds since the epoch, as `time.time` says them."""
        return time.time() + self._ahead

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead

    def clock(self) -> DatabaseClock:
        """A replica's."""
        return _Clock(self)

    async def install(self, connection: asyncpg.Connection) -> None:
        """For connections that are made from now on."""
        await connection.execute(_INSTALL)

    async def pass_by(self, connection: asyncpg.Connection, seconds: float) -> None:
        """It is so much later."""
        self._ahead += seconds
        await connection.execute("UPDATE world.ahead SET ahead = make_interval(secs => $1)", self._ahead)


class _Clock(DatabaseClock):
    """Who tries again does so at once: nothing in here gets better by waiting."""

    def __init__(self, world: Time) -> None:
        super().__init__()
        self._world = world

    def monotonic(self) -> float:
        return self._world.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(_AT_ONCE if seconds < _SHORT else seconds)
