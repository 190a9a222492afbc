"""The SQL of data keys. They are kept wrapped only."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, insert, select

from app.db import Tx
from app.tables import data_keys

_LOCK = 2_094_617_735_580_113_907  # one replica at a time makes the first data key


@dataclass(frozen=True)
class WrappedKey:
    id: UUID
    key_encryption_key: str
    wrapped_key: bytes


async def all_keys(tx: Tx) -> list[WrappedKey]:
    """Every data key, the newest last."""
    rows = await tx.execute(
        select(data_keys.c.id, data_keys.c.key_encryption_key, data_keys.c.wrapped_key).order_by(
            data_keys.c.id
        )
    )
    return [WrappedKey(*row) for row in rows]


async def lock(tx: Tx) -> None:
    """Held until the transaction ends."""
    await tx.execute(select(func.pg_advisory_xact_lock(_LOCK)))


async def add(tx: Tx, key: WrappedKey) -> None:
    await tx.execute(
        insert(data_keys).values(
            id=key.id, key_encryption_key=key.key_encryption_key, wrapped_key=key.wrapped_key
        )
    )
