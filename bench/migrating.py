"""`python -m bench.migrating`: how long readers and writers wait while a million grants are migrated, revision by revision.

The grants, a million refresh attempts and a million audit events are taken back to the first revision, which is then left again
under load: fetches by key, and writes such as a refresh makes, each at its own pace. Writes bench/results/growth.md and growth.json.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import asyncpg
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from app.upgrade import migration_config
from bench.growth_results import keep
from bench.seeded import PROVIDER, USERS, Seeded, execute, plain, postgres, say, seeded

_TASKS = 2  # of readers, and of writers
_PAUSE_SECONDS = 0.005
_QUIET_SECONDS = 5.0
_IDS = 20_000  # that writes are spread over
_FIRST = "0001"

_HISTORY = """
ALTER TABLE audit_events DISABLE TRIGGER USER;
INSERT INTO audit_events (id, actor, action, provider, user_id, grant_id, request_id)
  SELECT gen_random_uuid(), 'broker', 'grant.refreshed', provider, user_id, id, 'request-' || user_id FROM grants;
ALTER TABLE audit_events ENABLE TRIGGER USER;
INSERT INTO refresh_attempts (id, grant_id, lineage_id, epoch, replica, trigger, outcome, milliseconds, generation)
  SELECT gen_random_uuid(), id, lineage_id, 1, 'replica', 'scheduler', 'refreshed', 100, 1 FROM grants;
"""
# Columns by name, as the service asks for them: what was prepared with `*` does not outlive a new column.
_FETCH = """
SELECT id, status, generation, sealed_access_token, token_type, scope, expires_at, next_refresh_at FROM grants
WHERE provider = $1 AND user_id = $2 AND account = 'default' AND status <> 'revoked'
"""
_REFRESH = """
UPDATE grants SET generation = generation + 1, expires_at = now() + interval '1 hour',
  next_refresh_at = now() + interval '48 minutes', last_refreshed_at = now() WHERE id = $1
"""
_ATTEMPT = """
INSERT INTO refresh_attempts (id, grant_id, lineage_id, epoch, replica, trigger, outcome, milliseconds, generation)
VALUES (gen_random_uuid(), $1, $1, 1, 'replica', 'scheduler', 'refreshed', 100, 2)
"""
_EVENT = (
    "INSERT INTO audit_events (id, actor, action) VALUES (gen_random_uuid(), 'broker', 'grant.refreshed')"
)
_MIGRATE = "import asyncio, sys; from app.db import Database; asyncio.run(Database(sys.argv[1]).migrate(sys.argv[2]))"


@dataclass
class Load:
    """Milliseconds of each read and each write, since they were last taken."""

    reads: list[float] = field(default_factory=list)
    writes: list[float] = field(default_factory=list)

    def take(self) -> dict[str, float]:
        found = {"longest_read": max(self.reads), "longest_write": max(self.writes)}
        self.reads.clear()
        self.writes.clear()
        return {name: round(value, 1) for name, value in found.items()}


@asynccontextmanager
async def under_load(made: Seeded) -> AsyncIterator[Load]:
    load = Load()
    connections = [await asyncpg.connect(plain(made.owner_url)) for _ in range(2 * _TASKS)]
    ids = [row["id"] for row in await connections[0].fetch(f"SELECT id FROM grants LIMIT {_IDS}")]
    tasks = [
        *(asyncio.create_task(_paced(load.reads, _reading(each, made))) for each in connections[:_TASKS]),
        *(asyncio.create_task(_paced(load.writes, _writing(each, ids))) for each in connections[_TASKS:]),
    ]
    try:
        yield load
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        for connection in connections:
            connection.terminate()
        assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended


async def _paced(times: list[float], work: Callable[[], Awaitable[None]]) -> None:
    while True:
        began = time.perf_counter()
        await work()
        times.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(_PAUSE_SECONDS)


def _reading(connection: asyncpg.Connection, made: Seeded) -> Callable[[], Awaitable[None]]:
    async def read() -> None:
        user = f"{USERS}{random.randint(1, made.grants)}"
        assert await connection.fetchrow(_FETCH, PROVIDER, user) is not None

    return read


def _writing(connection: asyncpg.Connection, ids: list[UUID]) -> Callable[[], Awaitable[None]]:
    async def write() -> None:
        grant_id = random.choice(ids)
        async with connection.transaction():
            await connection.execute(_REFRESH, grant_id)
            await connection.execute(_ATTEMPT, grant_id)
            await connection.execute(_EVENT)

    return write


async def migrated(made: Seeded, steps: list[str], *, checkout: Path) -> dict[str, dict[str, float]]:
    """For each step how long it took, and how long somebody had to wait meanwhile, seconds and milliseconds."""
    found: dict[str, dict[str, float]] = {}
    async with under_load(made) as load:
        await asyncio.sleep(_QUIET_SECONDS)
        found["none"] = {"seconds": _QUIET_SECONDS, **load.take()}
        for revision in steps:
            began = time.monotonic()
            arguments = (sys.executable, "-c", _MIGRATE, made.owner_url, revision)
            process = await asyncio.create_subprocess_exec(*arguments, cwd=checkout)
            assert await process.wait() == 0
            seconds = time.monotonic() - began
            await asyncio.sleep(0.5)  # whoever waited has ended
            found[revision] = {"seconds": round(seconds, 1), **load.take()}
            say(f"{revision}: {found[revision]}")
    return found


async def _taken_back(made: Seeded) -> None:
    """To the first revision, with a history."""

    def downgrade(connection: Connection) -> None:
        config = migration_config()
        config.attributes["connection"] = connection
        command.downgrade(config, _FIRST)

    await execute(made.owner_url, _HISTORY)
    engine = create_async_engine(made.owner_url)
    async with engine.begin() as connection:
        await connection.run_sync(downgrade)
    await engine.dispose()
    await execute(made.owner_url, "VACUUM ANALYZE")
    await execute(made.owner_url, "CHECKPOINT")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.migrating", description="Who waits for migrations?"
    )
    parser.add_argument("--grants", type=int, default=1_000_000)
    parser.add_argument("--checkout", type=Path, help="Of another release: its migrations, all at once.")
    given = parser.parse_args()
    every = sorted(each.revision for each in ScriptDirectory.from_config(migration_config()).walk_revisions())
    steps = ["head"] if given.checkout else [each for each in every if each > _FIRST]
    with postgres() as (url, _):
        made = seeded(url, given.grants)
        asyncio.run(_taken_back(made))
        found = asyncio.run(migrated(made, steps, checkout=given.checkout or Path.cwd()))
    section = "migrations_of_another_release" if given.checkout else "migrations"
    say(keep(section, {"grants": given.grants, "steps": found}))


if __name__ == "__main__":
    main()
