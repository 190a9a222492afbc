"""Alembic, for as long as there are revisions to apply."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from app.revisions import MIGRATIONS


def migration_config() -> Config:
    """Alembic's configuration; `alembic.ini` says the same for its command line."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def upgrade(connection: Connection, revision: str) -> None:
    """Applies what lies between the database's revision and this one, in a transaction each."""
    config = migration_config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
    connection.commit()
