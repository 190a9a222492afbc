"""The SQL of seeding: grants written in bulk, by COPY."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, cast, func, literal, select

from app.db import Tx
from app.grants.grant import Status
from app.tables import grants


async def highest(tx: Tx, provider: str, *, prefix: str) -> int:
    """The highest number behind `prefix` that a user of the provider has; 0 where none has one."""
    number = func.substring(grants.c.user_id, len(prefix) + 1)
    query = select(func.max(cast(number, BigInteger))).where(
        grants.c.provider == provider,
        grants.c.status != literal(Status.REVOKED, literal_execute=True),
        func.starts_with(grants.c.user_id, prefix),
        number.regexp_match("^[0-9]{1,18}$"),
    )
    return (await tx.execute(query)).scalar_one() or 0


async def add_all(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> None:
    """New rows, which all have the same columns."""
    await tx.execute(
        select(1)
    )  # SQLAlchemy begins the transaction with its first statement, and COPY is none of its
    connection = (await tx.get_raw_connection()).driver_connection
    assert connection is not None
    columns = list(rows[0])
    records = [tuple(row[column] for column in columns) for row in rows]
    await connection.copy_records_to_table(grants.name, columns=columns, records=records)
