"""A schema that is brought up to date, and what it is like then."""

from __future__ import annotations

import asyncpg

from app.db import Database


async def migrate(url: str, revision: str = "head") -> None:
    db = Database(url, pool_size=1)
    try:
        await db.migrate(revision)
    finally:
        await db.close()


async def rules(url: str) -> set[tuple[str, ...]]:
    """Columns with their defaults, constraints and indexes, as PostgreSQL words them."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        found = await connection.fetch(_RULES)
    finally:
        await connection.close()
    return {tuple(row) for row in found if "alembic_version" not in row["place"]}


_RULES = """
SELECT conrelid::regclass::text || '.' || conname AS place, pg_get_constraintdef(oid) AS rule
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL
SELECT tablename || '.' || indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT table_name || '.' || column_name, concat_ws(' ', data_type, is_nullable, column_default)
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL
SELECT relname || '.options', reloptions::text FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND reloptions IS NOT NULL
"""
