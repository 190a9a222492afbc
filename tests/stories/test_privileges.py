"""The role that the service has in its database: all other tests run with it, and here is what it cannot do."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.db import Database
from app.embedded_role import ROLE
from app.privileges import TABLES
from app.sandbox.server import Sandbox
from app.tables import metadata
from tests.broker import Broker, bring
from tests.postgres import as_owner, database


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the service's role."""
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    assert await connection.fetchval("SELECT current_user") == ROLE
    yield connection
    await connection.close()


def test_every_table_has_its_privileges() -> None:
    assert set(TABLES) == {table.name for table in metadata.sorted_tables} | {"alembic_version"}


@pytest.mark.parametrize("table", sorted(TABLES))
async def test_no_table_can_be_altered_emptied_or_dropped(service: asyncpg.Connection, table: str) -> None:
    for statement in (
        f"ALTER TABLE {table} ADD COLUMN more text",
        f"DROP TABLE {table}",
        f"TRUNCATE {table}",
        f"CREATE INDEX ON {table} ((1))",
        f"ALTER TABLE {table} DISABLE TRIGGER ALL",
        f"CREATE TRIGGER t AFTER INSERT ON {table} EXECUTE FUNCTION queue_audit_events()",
        f"CREATE RULE r AS ON DELETE TO {table} DO INSTEAD NOTHING",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await service.execute(statement)


@pytest.mark.parametrize("table", sorted(name for name, given in TABLES.items() if "DELETE" not in given))
async def test_what_the_service_never_deletes_it_cannot(service: asyncpg.Connection, table: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute(f"DELETE FROM {table}")


@pytest.mark.parametrize(
    "table", ["audit_events", "audit_chain", "audit_beginning", "audit_retention", "refresh_attempts"]
)
async def test_the_history_can_be_added_to_and_not_changed(service: asyncpg.Connection, table: str) -> None:
    column = await service.fetchval(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 LIMIT 1", table
    )
    for statement in (f"UPDATE {table} SET {column} = {column}", f"SELECT 1 FROM {table} FOR UPDATE"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await service.execute(statement)


@pytest.mark.parametrize(("days", "refused"), [(0, [1, 31, 3650]), (30, [1, 29]), (90, [1, 31, 89])])
async def test_the_audit_trail_is_pruned_as_the_owner_has_said_and_no_further(
    service: asyncpg.Connection, database_url: str, days: int, refused: list[int]
) -> None:
    async with database(database_url) as owner:
        await owner.execute(f"UPDATE audit_retention SET days = {days}")
    prune = "SELECT prune_audit(clock_timestamp() - interval '{} days', 1000)"
    for younger in refused:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="are kept for"):
            await service.execute(prune.format(younger))
    if days:
        await service.execute(prune.format(days + 1))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute("UPDATE audit_retention SET days = 30")


async def test_migrations_say_how_long_events_are_kept(database_url: str) -> None:
    for days in (400, 0):
        db = Database(database_url, migrate_url=as_owner(database_url), audit_days=days, pool_size=1)
        await db.migrate()
        await db.close()
        async with database(database_url) as owner:
            assert await owner.fetchval("SELECT days FROM audit_retention") == days


async def test_nothing_is_made_beside_the_tables(service: asyncpg.Connection) -> None:
    for statement in (
        "CREATE TABLE more (id int)",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE ROLE another",
        "SET ROLE broker",
        "COPY grants TO PROGRAM 'cat'",
        "SELECT pg_read_file('/etc/passwd')",
        "ALTER ROLE broker_service SUPERUSER",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await service.execute(statement)


async def test_migrating_again_takes_away_what_was_given_beside(database_url: str) -> None:
    async with database(database_url) as owner:
        await owner.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {ROLE}")
    db = Database(database_url, migrate_url=as_owner(database_url), pool_size=1)
    await db.migrate()
    await db.close()
    async with database(database_url) as owner:
        query = "SELECT has_table_privilege($1, 'audit_events', 'DELETE')"
        assert not await owner.fetchval(query, ROLE)


async def test_whether_the_role_may_alter_tables_is_known(broker: Broker, database_url: str) -> None:
    assert not await broker.services.db.may_alter()
    owner = Database(as_owner(database_url), pool_size=1)
    assert await owner.may_alter()
    await owner.close()


async def test_a_grant_lives_and_ends_with_no_more_than_that(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    assert (await broker.token("sandbox/ada"))["generation"] == 2
    assert (await broker.http.delete("/grants/sandbox/ada")).json() == {"revoked_upstream": True}
    for job in broker.services.timetable.jobs:
        await job.work()
