"""The SQL of data keys. They are kept wrapped only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, insert, select, update

from app.db import Tx
from app.tables import data_keys
from app.vault.data_key import WrappedKey

_LOCK = 2_094_617_735_580_113_907  # one replica at a time makes a data key


async def all_keys(tx: Tx) -> list[WrappedKey]:
    """Every data key, the newest last."""
    columns = (data_keys.c[name] for name in WrappedKey.__dataclass_fields__)
    rows = await tx.execute(select(*columns).order_by(data_keys.c.active_at, data_keys.c.id))
    return [WrappedKey(*row) for row in rows]


async def lock(tx: Tx) -> None:
    """Held until the transaction ends."""
    await tx.execute(select(func.pg_advisory_xact_lock(_LOCK)))


async def add(
    tx: Tx, key_id: UUID, key_encryption_key: str, wrapped_key: bytes, *, notice: timedelta
) -> datetime:
    """Keeps a new data key, and tells when it is in force: `notice` from now."""
    query = insert(data_keys).values(
        id=key_id,
        key_encryption_key=key_encryption_key,
        wrapped_key=wrapped_key,
        active_at=func.clock_timestamp() + notice,
    )
    active_at: datetime = (await tx.execute(query.returning(data_keys.c.active_at))).scalar_one()
    return active_at


async def add_seals(tx: Tx, seals: Mapping[UUID, int]) -> None:
    """Counts what each sealed."""
    for key_id in sorted(seals):
        await tx.execute(
            update(data_keys).where(data_keys.c.id == key_id).values(seals=data_keys.c.seals + seals[key_id])
        )


async def rewrap(tx: Tx, key: WrappedKey, *, key_encryption_key: str, wrapped_key: bytes) -> bool:
    """Keeps it wrapped otherwise; False where it is not as it was any more."""
    query = (
        update(data_keys)
        .where(data_keys.c.id == key.id, data_keys.c.wrapped_key == key.wrapped_key)
        .values(key_encryption_key=key_encryption_key, wrapped_key=wrapped_key)
    )
    return (await tx.execute(query)).rowcount == 1


async def note_emptied(tx: Tx, key_ids: Collection[UUID]) -> None:
    """Nothing that is kept was sealed under them any more."""
    await tx.execute(
        update(data_keys).where(data_keys.c.id.in_(key_ids)).values(emptied_at=func.clock_timestamp())
    )
