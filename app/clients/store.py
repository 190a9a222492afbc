"""The SQL of registrations made through the API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from app.db import Tx
from app.tables import oauth_clients


@dataclass(frozen=True)
class Stored:
    """One row of `oauth_clients`. Its secret is sealed for its `generation`."""

    id: UUID
    name: str
    catalogue: str
    client_id: str
    sealed_client_secret: bytes | None = field(repr=False)
    scopes: tuple[str, ...]
    settings: Mapping[str, str]
    resources: Mapping[str, int]
    generation: int
    created_at: datetime
    updated_at: datetime
    removed_at: datetime | None


def _stored(row: Row[Any]) -> Stored:
    fields = dict(row._mapping) | {"scopes": tuple(row.scopes or ())}
    return Stored(**fields)


async def listed(tx: Tx) -> list[Stored]:
    """Those that are not removed."""
    query = select(oauth_clients).where(oauth_clients.c.removed_at.is_(None))
    return [_stored(row) for row in await tx.execute(query)]


async def find(tx: Tx, name: str, *, lock: bool = False) -> Stored | None:
    """The registration of that name, removed or not; with `lock` nobody else changes it in this transaction."""
    query = select(oauth_clients).where(oauth_clients.c.name == name)
    row = (await tx.execute(query.with_for_update() if lock else query)).one_or_none()
    return None if row is None else _stored(row)


async def add(tx: Tx, values: Mapping[str, Any]) -> Stored | None:
    """A new one; None where another request has just taken its name."""
    query = upsert(oauth_clients).values(**values).on_conflict_do_nothing().returning(oauth_clients)
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else _stored(row)


async def replace(tx: Tx, name: str, values: Mapping[str, Any]) -> Stored:
    query = (
        update(oauth_clients)
        .where(oauth_clients.c.name == name)
        .values(updated_at=func.clock_timestamp(), removed_at=None, **values)
        .returning(oauth_clients)
    )
    return _stored((await tx.execute(query)).one())


async def remove(tx: Tx, name: str) -> bool:
    """Whether there was one. Its secret goes; the name, which grants have, stays that of its catalogue entry."""
    query = (
        update(oauth_clients)
        .where(oauth_clients.c.name == name, oauth_clients.c.removed_at.is_(None))
        .values(sealed_client_secret=None, removed_at=func.clock_timestamp())
        .returning(oauth_clients.c.id)
    )
    return (await tx.execute(query)).one_or_none() is not None
