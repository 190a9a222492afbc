"""The SQL of sealing anew. Every column called `sealed_*` holds what `Place(table, id, field, generation)` says: its table, the
row's `id`, its name without `sealed_`, and the row's `generation`, 0 where there is none."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    LargeBinary,
    Table,
    any_,
    bindparam,
    column,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA
from sqlalchemy.dialects.postgresql import UUID as PG_UUID

from app.db import Tx
from app.tables import metadata
from app.vault.seal import Place, key_id_bytes

_PREFIX = "sealed_"


@dataclass(frozen=True)
class SealedRow:
    """A row with something sealed under a key that is to be left. `values` by column, None where there is none."""

    id: UUID
    generation: int
    values: dict[str, bytes | None]

    def place(self, table: str, name: str) -> Place:
        """Where the value of that column was sealed to."""
        return Place(table, self.id, name.removeprefix(_PREFIX), self.generation)


def sealed_tables() -> dict[str, tuple[str, ...]]:
    """Each table that holds sealed values, and the columns that do."""
    found = {
        table.name: tuple(each.name for each in table.c if _is_sealed(each))
        for table in metadata.sorted_tables
    }
    return {table: columns for table, columns in found.items() if columns}


def _is_sealed(each: Column[Any]) -> bool:
    return each.name.startswith(_PREFIX) and isinstance(each.type, LargeBinary)


async def end_of_window(tx: Tx, table_name: str, *, after: UUID, rows: int) -> UUID | None:
    """The id at which so many rows end, whatever they hold; None where there is none behind `after`."""
    table = metadata.tables[table_name]
    window = select(table.c.id).where(table.c.id > after).order_by(table.c.id).limit(rows).subquery()
    end: UUID | None = (await tx.execute(select(window.c.id).order_by(window.c.id.desc()).limit(1))).scalar()
    return end


async def sizes_under(
    tx: Tx, table_name: str, key_ids: Collection[UUID], *, after: UUID, until: UUID, limit: int
) -> list[tuple[UUID, int]]:
    """Up to `limit` rows in the order of their ids, and how many bytes each has sealed."""
    table, columns = metadata.tables[table_name], sealed_tables()[table_name]
    size: ColumnElement[int] = literal(0)
    for name in columns:
        size = size + func.coalesce(func.octet_length(table.c[name]), 0)
    query = (
        select(table.c.id, size)
        .where(table.c.id > after, table.c.id <= until, _any_under(table, columns, key_ids))
        .order_by(table.c.id)
        .limit(limit)
    )
    return [(row[0], row[1]) for row in await tx.execute(query)]


async def sealed_under(
    tx: Tx, table_name: str, key_ids: Collection[UUID], ids: Sequence[UUID]
) -> list[SealedRow]:
    """Of these rows those that are so still, locked; those that somebody else holds at the moment are left out."""
    table = metadata.tables[table_name]
    columns = sealed_tables()[table_name]
    generation = table.c.generation if "generation" in table.c else literal(0)
    query = (
        select(table.c.id, generation, *(table.c[name] for name in columns))
        .where(table.c.id == any_(literal(list(ids), ARRAY(PG_UUID))), _any_under(table, columns, key_ids))
        .order_by(table.c.id)
        .with_for_update(key_share=True, skip_locked=True)
    )
    return [
        SealedRow(row[0], row[1], dict(zip(columns, row[2:], strict=True))) for row in await tx.execute(query)
    ]


async def store_anew(tx: Tx, table_name: str, rows: Sequence[SealedRow]) -> None:
    """Puts these values in the place of what is there. The rows have to be locked."""
    table, columns = metadata.tables[table_name], sealed_tables()[table_name]
    given = func.unnest(
        bindparam("ids", type_=ARRAY(PG_UUID)),
        *(bindparam(name, type_=ARRAY(BYTEA)) for name in columns),
    ).table_valued(column("id", PG_UUID), *(column(f"new_{name}", BYTEA) for name in columns))
    given = given.render_derived(name="given")
    query = (
        update(table)
        .where(table.c.id == given.c.id)
        .values({name: given.c[f"new_{name}"] for name in columns})
    )
    values: dict[str, object] = {name: [row.values[name] for row in rows] for name in columns}
    await tx.execute(query, {"ids": [row.id for row in rows], **values})


async def ids_under(
    tx: Tx, table_name: str, key_ids: Collection[UUID], *, after: UUID, until: UUID
) -> list[UUID]:
    """The rows in that window that hold something which was sealed under any of them."""
    table = metadata.tables[table_name]
    within = (table.c.id > after, table.c.id <= until)
    query = select(table.c.id).where(*within, _any_under(table, sealed_tables()[table_name], key_ids))
    return list(await tx.scalars(query))


def _any_under(table: Table, columns: Sequence[str], key_ids: Collection[UUID]) -> ColumnElement[bool]:
    """The data key's id stands at the beginning of what it sealed."""
    start, length = key_id_bytes()
    wanted = [key_id.bytes for key_id in key_ids]
    return or_(*(func.substring(table.c[name], start, length).in_(wanted) for name in columns))
