"""Migrations: there and back, equal to the models, and safe when replicas start at once."""

from __future__ import annotations

import asyncio
import sys

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from app.db import Database
from app.tables import metadata
from app.upgrade import migration_config
from tests.migrated import migrate, rules


async def _tables(url: str) -> set[str]:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        found = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    finally:
        await connection.close()
    return {row["tablename"] for row in found}


def _downgrade(connection: Connection, revision: str) -> None:
    config = migration_config()
    config.attributes["connection"] = connection
    command.downgrade(config, revision)


def _differences(connection: Connection) -> list[object]:
    return list(
        compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)
    )


async def test_the_migrations_make_what_the_models_say(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    engine = create_async_engine(empty_database_url)
    async with engine.connect() as connection:
        differences = await connection.run_sync(_differences)
    await engine.dispose()
    assert differences == []
    assert await _tables(empty_database_url) == {*metadata.tables, "alembic_version"}


async def test_the_migrations_hold_the_same_rules_as_the_models(
    empty_database_url: str, database_url: str
) -> None:
    engine = create_async_engine(empty_database_url)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await engine.dispose()
    assert await rules(database_url) == await rules(empty_database_url)


async def test_every_migration_can_be_taken_back_and_applied_again(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    engine = create_async_engine(empty_database_url)
    for script in ScriptDirectory.from_config(migration_config()).walk_revisions():
        async with engine.begin() as connection:
            await connection.run_sync(_downgrade, str(script.down_revision or "base"))
    assert await _tables(empty_database_url) == {"alembic_version"}
    await engine.dispose()
    await migrate(empty_database_url)
    assert await _tables(empty_database_url) == {*metadata.tables, "alembic_version"}


async def test_replicas_that_start_at_once_migrate_once(empty_database_url: str) -> None:
    await asyncio.gather(*(migrate(empty_database_url) for _ in range(8)))
    assert "grants" in await _tables(empty_database_url)


async def test_a_release_that_knows_less_than_the_schema_starts_all_the_same(
    empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await migrate(empty_database_url)
    connection = await asyncpg.connect(empty_database_url.replace("+asyncpg", ""))
    await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    await migrate(empty_database_url)
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == "9999"
    await connection.close()
    assert "schema.newer" in caplog.text


async def test_an_event_written_while_the_chain_is_made_is_chained(empty_database_url: str) -> None:
    db = Database(empty_database_url, pool_size=1)
    await db.migrate("0006")
    writer = await asyncpg.connect(empty_database_url.replace("+asyncpg", ""))
    writing = writer.transaction()
    await writing.start()
    await writer.execute(
        "INSERT INTO audit_events (id, actor, action) VALUES (gen_random_uuid(), 'a', 'test.done')"
    )
    migrating = asyncio.create_task(db.migrate())
    await asyncio.sleep(1)
    assert not migrating.done()  # it waits for whoever is writing
    await writing.commit()
    await migrating
    assert await writer.fetchval("SELECT count(*) FROM audit_unchained") == 1
    await writer.close()
    await db.close()


async def test_a_schema_that_is_up_to_date_is_left_alone_without_alembic(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "alembic", None)  # an import of it fails
    monkeypatch.delitem(sys.modules, "app.upgrade")
    await migrate(database_url)
    with pytest.raises(ImportError):
        await migrate(database_url, "0001")
