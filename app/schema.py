"""The schema: brought up to date, with what the service's role may do in it, and how long events are kept."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app import privileges
from app.telemetry import logger

log = logger(__name__)

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"


def migration_config() -> Config:
    """Alembic's configuration; `alembic.ini` says the same for its command line."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


async def give_privileges(tx: AsyncConnection, role: str) -> None:
    """Gives `role` what the service needs, unless it is the one that owns the tables."""
    owner, schema = (await tx.execute(select(func.current_user(), func.current_schema()))).one()
    if role != owner:
        for statement in privileges.statements(role, schema):
            await tx.execute(text(statement))


async def set_retention(tx: AsyncConnection, days: int) -> None:
    """Says how long audit events are kept, 0 for ever, if this role may; else the log tells of a difference."""
    query = text("SELECT days, has_table_privilege('audit_retention', 'UPDATE') FROM audit_retention")
    present, may_change = (await tx.execute(query)).one()
    if present == days:
        return
    if may_change:
        await tx.execute(text("UPDATE audit_retention SET days = :days"), {"days": days})
    else:
        sentence = (
            f"audit events are kept for {present} days; only a migration by the tables' owner changes that"
        )
        log.warning("settings.retention_not_set", detail=sentence)


def upgrade(connection: Connection, revision: str) -> None:
    """Brings the schema to `revision`; leaves one alone that a later release has made."""
    config = migration_config()
    known = {each.revision for each in ScriptDirectory.from_config(config).walk_revisions()}
    present = MigrationContext.configure(connection).get_current_revision()
    if present is not None and present not in known:
        # A later release was here, and migrations only add: this one starts beside it, or after it was taken back.
        log.warning("schema.newer", detail=f"the schema is at {present}, which this release does not know")
        return
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
