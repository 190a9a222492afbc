"""What migrations are written in, so that nobody waits for them: readers and writers go on while a large table is changed.

A revision is steps that may be repeated, each by itself (`beside`), or one transaction, or the first and then the second. So
whatever interrupts one, it is begun again and comes to the same end.

    with beside():            outside any transaction
        add_column(...)       no row is rewritten
        backfill(...)         in batches
        add_check(...)        NOT VALID, then validated: rows are read under a lock that stops no reader or writer
        build_index(...)      CONCURRENTLY; what is left of a build that was interrupted is dropped first
    op.create_table(...)      and whatever else takes no time

No statement waits for a lock longer than `app.revisions` says, since everybody who comes later would wait behind it: what does not
get one is tried again (`app.schema`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from alembic import op
from sqlalchemy import Column, TextClause, bindparam, text

from app.revisions import set_lock_timeout

BATCH = 10_000


@contextmanager
def beside() -> Iterator[None]:
    """Each statement commits by itself, so each has to be one that may be repeated."""
    with op.get_context().autocommit_block():
        yield


@contextmanager
def _patiently() -> Iterator[None]:
    """For what waits without anybody having to wait behind it."""
    op.execute("SET lock_timeout = 0")
    try:
        yield
    finally:
        set_lock_timeout(op.get_bind())


def add_column(table: str, column: Column[Any]) -> None:
    """Its default has to be a constant, or one that is the same for all rows (`now()`): those that are there are not rewritten."""
    op.add_column(table, column, if_not_exists=True)


def add_check(name: str, table: str, condition: str) -> None:
    """A CHECK constraint. What is written from now on has to meet it; then what is there is seen to."""
    query = "SELECT 1 FROM pg_constraint WHERE conrelid = CAST(:table AS regclass) AND conname = :name"
    if _first(query, table=table, name=name) is None:
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({condition}) NOT VALID")
    with _patiently():
        op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


def build_index(name: str, table: str, columns: Sequence[str | TextClause], **options: Any) -> None:
    """`options`: as for `op.create_index`."""
    query = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"
    with _patiently():
        if _first(query, name=name) is False:
            drop_index(name)
        op.create_index(
            name, table, list(columns), postgresql_concurrently=True, if_not_exists=True, **options
        )


def drop_index(name: str) -> None:
    """If it is there."""
    with _patiently():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


def backfill(table: str, statement: str) -> None:
    """Executes `statement` for all rows of `table` that are there now, some thousands at a time: those whose id is above
    `:after` and not above `:upto`."""
    rows = f"SELECT id FROM {table} WHERE id > :after ORDER BY id LIMIT {BATCH}"
    last = text(f"SELECT id FROM ({rows}) AS batch ORDER BY id DESC LIMIT 1")
    connection, after = op.get_bind(), "00000000-0000-0000-0000-000000000000"
    batch = text(statement).bindparams(bindparam("after"), bindparam("upto"))
    while (upto := connection.scalar(last, {"after": after})) is not None:
        connection.execute(batch, {"after": after, "upto": upto})
        after = upto


def _first(query: str, **parameters: str) -> Any:
    return op.get_bind().scalar(text(query), parameters)
