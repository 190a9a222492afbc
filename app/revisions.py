"""Which revisions of the schema there are, and at which one a database is. Without Alembic, which most starts have no use for:
they find the schema as it has to be, and would keep what it takes in memory for as long as they run."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, text

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
LOCK_TIMEOUT = "200ms"


def known() -> list[str]:
    """Those that this release has, the first one first: their files are called so."""
    return sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def present(connection: Connection) -> str | None:
    """The one that the database is at; None before the first."""
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    found = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return None if found is None else str(found)


def set_lock_timeout(connection: Connection) -> None:
    """For all that this connection is asked from now on."""
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
