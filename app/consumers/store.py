"""The SQL of consumers and their keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Text, cast, delete, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert

from app.consumers.consumer import ApiKey, Consumer, hash_secret, rights_of
from app.db import Tx
from app.resilience import Rate
from app.statements import Prepared, Statements, given
from app.tables import api_keys, consumers


class _Columns(Protocol):
    """A row by the names of its columns, whoever asked for it."""

    def __getitem__(self, name: str, /) -> Any: ...


@dataclass(frozen=True)
class ListedKey:
    key_id: str
    consumer: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


_keys = select(api_keys, *(column for column in consumers.c if column.name not in api_keys.c)).join(
    consumers, consumers.c.id == api_keys.c.consumer_id
)
_READ_KEYS = Prepared(_keys.where(api_keys.c.id == func.any(given("key_ids", ARRAY(Text)))))


async def find_key(tx: Tx, key_id: str) -> tuple[ApiKey, Consumer] | None:
    """The key and whose it is, in force or not."""
    row = (await tx.execute(_keys.where(api_keys.c.id == key_id))).mappings().one_or_none()
    return None if row is None else _key(row)


async def read_keys(statements: Statements, key_ids: Sequence[str]) -> dict[str, tuple[ApiKey, Consumer]]:
    """The same of those that are there, by one statement of its own."""
    rows = await statements.all(_READ_KEYS, key_ids=key_ids)
    return {row["id"]: _key(row) for row in rows}


def _key(row: _Columns) -> tuple[ApiKey, Consumer]:
    key = ApiKey(row["id"], row["secret_sha256"], row["expires_at"], row["revoked_at"])
    return key, replace(_consumer(row["consumer_id"], row), key_id=key.id)


async def find_consumer(tx: Tx, name: str) -> Consumer | None:
    """Locked until the transaction ends."""
    query = select(consumers).where(consumers.c.name == name).with_for_update()
    row = (await tx.execute(query)).mappings().one_or_none()
    return None if row is None else _consumer(row["id"], row)


def _consumer(consumer_id: UUID, row: _Columns) -> Consumer:
    return Consumer(
        consumer_id,
        row["name"],
        frozenset(row["scopes"]),
        None if row["providers"] is None else frozenset(row["providers"]),
        None if row["users"] is None else tuple(row["users"]),
        None if row["rate_limit"] is None else Rate(row["rate_limit"], row["rate_per_seconds"]),
    )


async def ensure_consumer(
    tx: Tx,
    *,
    consumer_id: UUID,
    name: str,
    scopes: Sequence[str],
    providers: Sequence[str] | None = None,
    users: Sequence[str] | None = None,
) -> UUID:
    """The id of the consumer called `name`, made or changed to have these rights."""
    rights = {"scopes": list(scopes), "providers": providers, "users": users}
    query = (
        upsert(consumers)
        .values(id=consumer_id, name=name, **rights)
        .on_conflict_do_update(index_elements=["name"], set_=rights)
        .returning(consumers.c.id)
    )
    found: UUID = (await tx.execute(query)).scalar_one()
    return found


async def add_consumer(tx: Tx, consumer: Consumer) -> bool:
    """A new consumer; False where there is one of that name already."""
    query = (
        upsert(consumers)
        .values(id=consumer.id, name=consumer.name, **_rights(consumer))
        .on_conflict_do_nothing()
        .returning(consumers.c.id)
    )
    return (await tx.execute(query)).one_or_none() is not None


async def find_consumer_by_id(tx: Tx, consumer_id: UUID, *, lock: bool = False) -> Consumer | None:
    query = select(consumers).where(consumers.c.id == consumer_id)
    row = (await tx.execute(query.with_for_update() if lock else query)).mappings().one_or_none()
    return None if row is None else _consumer(row["id"], row)


async def add_key(
    tx: Tx, *, key_id: str, secret: str, consumer_id: UUID, expires_at: datetime | None = None
) -> bool:
    """Stores the hash of a key; False where a key of that id is there already."""
    query = (
        upsert(api_keys)
        .values(id=key_id, consumer_id=consumer_id, secret_sha256=hash_secret(secret), expires_at=expires_at)
        .on_conflict_do_nothing()
        .returning(api_keys.c.id)
    )
    return (await tx.execute(query)).one_or_none() is not None


async def revoke_key(tx: Tx, key_id: str, *, consumer_id: UUID | None = None) -> bool:
    """Whether there was such a key in force, of that consumer if one is named."""
    query = update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
    if consumer_id is not None:
        query = query.where(api_keys.c.consumer_id == consumer_id)
    result = await tx.execute(query.values(revoked_at=func.clock_timestamp()).returning(api_keys.c.id))
    return result.one_or_none() is not None


async def revoke_other_keys(tx: Tx, consumer_id: UUID, *, but: str) -> list[str]:
    """Leaves the consumer one key; the ids of those that were in force besides it."""
    query = (
        update(api_keys)
        .where(api_keys.c.consumer_id == consumer_id, api_keys.c.id != but, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=func.clock_timestamp())
        .returning(api_keys.c.id)
    )
    return list(await tx.scalars(query))


async def list_keys(tx: Tx, consumer_id: UUID | None = None) -> list[ListedKey]:
    """All keys, or those of one consumer, in force or not."""
    query = (
        select(api_keys, consumers.c.name, consumers.c.scopes)
        .join(consumers, consumers.c.id == api_keys.c.consumer_id)
        .order_by(consumers.c.name, api_keys.c.created_at)
    )
    if consumer_id is not None:
        query = query.where(api_keys.c.consumer_id == consumer_id)
    return [
        ListedKey(
            row.id,
            row.name,
            tuple(row.scopes),
            row.created_at,
            row.expires_at,
            row.revoked_at,
            row.last_used_at,
        )
        for row in await tx.execute(query)
    ]


async def note_uses(tx: Tx, uses: Mapping[str, datetime]) -> set[str]:
    """Moves `last_used_at` on, never back. Waits for no lock: answers the keys that others hold at this moment, which are left
    as they were."""
    ids, times = api_keys.c.id.type, api_keys.c.last_used_at.type
    query = select(api_keys.c.id).where(api_keys.c.id.in_(uses)).with_for_update(skip_locked=True)
    free = set(await tx.scalars(query))
    given = func.unnest(cast(list(uses), ARRAY(ids)), cast(list(uses.values()), ARRAY(times)))
    noted = given.table_valued("id", "at", name="noted").render_derived()
    update_free = update(api_keys).where(api_keys.c.id == noted.c.id, api_keys.c.id.in_(free))
    await tx.execute(update_free.values(last_used_at=func.greatest(api_keys.c.last_used_at, noted.c.at)))
    there = set(await tx.scalars(select(api_keys.c.id).where(api_keys.c.id.in_(uses))))
    return there - free


async def list_consumers(tx: Tx, *, after: UUID | None, limit: int) -> list[Consumer]:
    """Up to `limit`, in the order of their ids, from behind `after` on."""
    query = select(consumers).order_by(consumers.c.id).limit(limit)
    if after is not None:
        query = query.where(consumers.c.id > after)
    return [_consumer(row["id"], row) for row in (await tx.execute(query)).mappings()]


async def change_consumer(tx: Tx, consumer: Consumer) -> None:
    """Gives it these rights and this rate."""
    query = update(consumers).where(consumers.c.id == consumer.id)
    await tx.execute(query.values(**_rights(consumer)))


async def delete_consumer(tx: Tx, consumer_id: UUID) -> None:
    """With all of its keys."""
    await tx.execute(delete(consumers).where(consumers.c.id == consumer_id))


def _rights(consumer: Consumer) -> dict[str, object]:
    rights, rate = rights_of(consumer), consumer.rate
    del rights["rate"]
    limits = (None, None) if rate is None else (rate.limit, rate.per_seconds)
    return rights | dict(zip(("rate_limit", "rate_per_seconds"), limits, strict=True))
