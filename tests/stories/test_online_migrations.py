"""Migrations keep nobody waiting, and whatever interrupts one, the next goes on with it."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from alembic.script import ScriptDirectory

from app import online
from app.audit import chain_store
from app.upgrade import migration_config
from tests.broker import ENCRYPTION_KEYS
from tests.migrated import migrate, rules
from tests.online import Asked, listened, objections
from tests.postgres import database

REVISIONS = sorted(each.revision for each in ScriptDirectory.from_config(migration_config()).walk_revisions())
# Of the first revision's tables each has rows.
_ROWS = """
INSERT INTO grants (id, provider, user_id, lineage_id)
  SELECT gen_random_uuid(), 'google', 'user-' || n, gen_random_uuid() FROM generate_series(1, 50) AS n;
INSERT INTO refresh_attempts (id, grant_id, lineage_id, epoch, replica, trigger, outcome, milliseconds, generation)
  SELECT gen_random_uuid(), id, lineage_id, 1, 'a', 'request', 'refreshed', 1, 1 FROM grants;
INSERT INTO audit_events (id, actor, action) SELECT gen_random_uuid(), 'a', 'test.done' FROM generate_series(1, 50);
INSERT INTO consumers (id, name, scopes) VALUES (gen_random_uuid(), 'a', '{}');
INSERT INTO api_keys (id, consumer_id, secret_sha256) SELECT '0123456789abcdef', id, '' FROM consumers;
INSERT INTO data_keys (id, key_encryption_key, wrapped_key) VALUES (gen_random_uuid(), 'a', '');
INSERT INTO oauth_clients (name, id, catalogue, client_id) VALUES ('a', gen_random_uuid(), 'a', 'a');
INSERT INTO authorization_requests (id, state_sha256, provider, user_id, account, scopes, redirect_uri,
    sealed_code_verifier, browser_bound, expires_at)
  VALUES (gen_random_uuid(), '', 'a', 'a', 'a', '{}', '', '', false, now());
"""
_FILES = """
SELECT relname, relfilenode FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""
_INVALID = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"


@pytest.fixture
async def url(empty_database_url: str) -> str:
    """A database of the first release, with rows."""
    await migrate(empty_database_url, "0001")
    async with database(empty_database_url) as connection:
        await connection.execute(_ROWS)
    return empty_database_url


@pytest.fixture
async def wanted(database_url: str) -> set[tuple[str, ...]]:
    return await rules(database_url)


@asynccontextmanager
async def _in_transaction(url: str, statement: str) -> AsyncIterator[asyncpg.Connection]:
    """Somebody who has asked that, and has not come to an end yet."""
    async with database(url) as connection, connection.transaction():
        await connection.execute(statement)
        yield connection


async def _start(url: str) -> Process:
    """`broker migrate` as a process of its own."""
    settings = {"DATABASE_URL": url, "ENCRYPTION_KEYS": ENCRYPTION_KEYS, "ENVIRONMENT": "development"}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.cli", "migrate"),
        env={**os.environ, **{f"BROKER_{name}": value for name, value in settings.items()}},
        stdout=PIPE,
        stderr=PIPE,
    )


async def _until_said(process: Process, what: str) -> None:
    assert process.stderr is not None
    async with asyncio.timeout(30):
        while what not in (await process.stderr.readline()).decode():
            assert not process.stderr.at_eof()


async def _revision(url: str) -> str:
    async with database(url) as connection:
        return str(await connection.fetchval("SELECT version_num FROM alembic_version"))


async def _files(connection: asyncpg.Connection) -> dict[str, int]:
    """Of each table: it gets another one where it is rewritten."""
    return {row["relname"]: row["relfilenode"] for row in await connection.fetch(_FILES)}


async def test_no_revision_keeps_anybody_waiting(url: str) -> None:
    for revision in REVISIONS[1:]:
        async with database(url) as connection:
            before = await _files(connection)
            with listened() as asked:
                await migrate(url, revision)
            after = await _files(connection)
        own = [each for each in asked if "pg_advisory" not in each.text]
        assert objections(own, set(before)) == [], revision
        rewritten = {table for table, file in before.items() if after.get(table, file) != file}
        assert rewritten == set(), revision


@pytest.mark.parametrize(
    "asked",
    [
        Asked("CREATE INDEX a ON grants (id)"),
        Asked("CREATE UNIQUE INDEX a ON grants USING btree (id)"),
        Asked("DROP INDEX a"),
        Asked("ALTER TABLE grants ADD CONSTRAINT a CHECK (true)"),
        Asked("ALTER TABLE grants ADD COLUMN a uuid, ADD CONSTRAINT b FOREIGN KEY (a) REFERENCES c"),
        Asked("ALTER TABLE grants ADD COLUMN IF NOT EXISTS a uuid REFERENCES b"),
        Asked("ALTER TABLE public.grants ALTER COLUMN scope SET NOT NULL"),
        Asked("ALTER TABLE grants ALTER COLUMN scope TYPE VARCHAR(9)"),
        Asked("LOCK TABLE grants IN SHARE MODE"),
        Asked("ALTER TABLE grants VALIDATE CONSTRAINT a"),
        Asked("UPDATE grants SET scope = ''"),
        Asked("UPDATE grants SET scope = '' WHERE id > $1", ("a",)),  # batches, in one transaction
        Asked("INSERT INTO more (id) SELECT id FROM grants"),
    ],
)
def test_what_would_keep_others_waiting_is_refused(asked: Asked) -> None:
    timeout = Asked("SET lock_timeout = '200ms'")
    assert objections([timeout, asked], {"grants"}) != []
    assert objections([timeout, Asked("CREATE INDEX a ON more (id)")], {"grants"}) == []
    assert len(objections([Asked("ALTER TABLE grants ADD COLUMN a text")], {"grants"})) == 1


async def test_readers_do_not_wait_behind_a_migration_that_waits(url: str) -> None:
    async with database(url) as reader:
        await reader.execute("SET lock_timeout = '5s'")
        async with _in_transaction(url, "SELECT FROM grants"):
            migrating = await _start(url)
            for _ in range(3):
                await _until_said(migrating, "schema.waits")
                assert await reader.fetchval("SELECT count(*) FROM grants") == 50
        assert await migrating.wait() == 0
    assert await _revision(url) == REVISIONS[-1]


async def test_several_migrations_at_once_come_to_one_end(url: str, wanted: set[tuple[str, ...]]) -> None:
    migrating = [await _start(url) for _ in range(3)]
    for each in migrating:
        _, said = await each.communicate()
        assert each.returncode == 0, said.decode()
    assert await rules(url) == wanted


async def test_a_migration_that_is_killed_is_gone_on_with_by_the_next_ones(
    url: str, wanted: set[tuple[str, ...]]
) -> None:
    writes = "INSERT INTO audit_events (id, actor, action) VALUES (gen_random_uuid(), 'a', 'test.done')"
    await migrate(url, "0005")
    async with _in_transaction(url, writes):
        migrating = await _start(url)
        await _until_said(migrating, "schema.waits")  # for the trigger that it wants to make
        migrating.kill()
        await migrating.wait()
        others = [await _start(url) for _ in range(2)]
        assert await _revision(url) == "0006"
    for each in others:
        _, said = await each.communicate()
        assert each.returncode == 0, said.decode()
    assert await rules(url) == wanted
    async with database(url) as connection:
        assert await connection.fetchval("SELECT count(*) FROM audit_unchained") == 51


async def test_an_index_whose_build_was_interrupted_is_built_again(
    url: str, wanted: set[tuple[str, ...]]
) -> None:
    building = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'CREATE INDEX CONC%'"
    async with database(url) as connection:
        # Whoever may look at tables as they were is waited for.
        async with _in_transaction(url, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1"):
            migrating = await _start(url)
            async with asyncio.timeout(30):
                while (pid := await connection.fetchval(building)) is None:
                    await asyncio.sleep(0.02)
            async with asyncio.timeout(30):
                while not await connection.fetchval(_INVALID):
                    await asyncio.sleep(0.02)
            await connection.execute("SELECT pg_terminate_backend($1)", pid)
            assert await migrating.wait() == 1
        assert await connection.fetchval(_INVALID) == 1
        await migrate(url)
        assert await connection.fetchval(_INVALID) == 0
    assert await rules(url) == wanted


async def test_rows_are_brought_along_in_batches_and_all_of_them(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online, "BATCH", 7)
    await migrate(url, "0008")
    with listened() as asked:
        await migrate(url)
    assert len([each for each in asked if each.text.startswith("INSERT INTO audit_unchained")]) == 8
    async with database(url) as connection:
        query = "SELECT count(*) FROM audit_events JOIN audit_unchained ON event_id = audit_events.id"
        assert await connection.fetchval(query) == 50


async def test_an_event_that_is_being_chained_is_not_queued_again(url: str) -> None:
    await migrate(url, "0008")
    async with database(url) as sealer:
        await sealer.execute(
            "INSERT INTO audit_events (id, actor, action) VALUES (gen_random_uuid(), 'a', 'test.done')"
        )
        async with sealer.transaction():
            await sealer.execute("SELECT pg_advisory_xact_lock($1)", chain_store.LOCK)
            await sealer.execute(
                "INSERT INTO audit_chain SELECT 1, event_id, sha256(''), event_id, 1, now() FROM audit_unchained"
            )
            await sealer.execute("DELETE FROM audit_unchained")
            migrating = await _start(url)
            await _until_said(migrating, "pg_advisory_lock")
        assert await migrating.wait() == 0
        assert await sealer.fetchval("SELECT count(*) FROM audit_unchained") == 50
        assert (
            await sealer.fetchval("SELECT count(*) FROM audit_unchained JOIN audit_chain USING (event_id)")
            == 0
        )
