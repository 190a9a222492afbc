"""The SQL of accepting deliveries, and of the keys that consumers make their requests repeatable by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import DateTime, Integer, LargeBinary, bindparam, func, insert, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.dialects.postgresql import insert as upsert

from app.db import Tx
from app.deliveries.wanted import Wanted, WantedBatch
from app.grants.grant import GrantKey
from app.tables import deliveries, delivery_batches, idempotency_keys

_ROWS = 1000  # of one statement: some 100 ms of PostgreSQL's, and an array that is soon encoded
_BYTES = 1024 * 1024  # likewise, unless one alone has more


class Chunk(NamedTuple):
    """A request of a batch. `next_attempt_at` None: it waits for its turn."""

    id: UUID
    first_record: int
    records: int
    sealed_request: bytes
    next_attempt_at: datetime | None


@dataclass(frozen=True)
class Owner:
    """Who asks."""

    id: UUID
    name: str


@dataclass(frozen=True)
class Earlier:
    """What the same key has led to."""

    resource_id: UUID
    parameters_sha256: bytes = field(repr=False)


async def find_key(tx: Tx, consumer_id: UUID, key_sha256: bytes, *, ttl: timedelta) -> Earlier | None:
    """What the key has led to within `ttl`, so far as that is committed."""
    keys = idempotency_keys.c
    query = select(keys.resource_id, keys.parameters_sha256).where(
        keys.consumer_id == consumer_id,
        keys.key_sha256 == key_sha256,
        keys.created_at >= func.clock_timestamp() - literal(ttl),
    )
    found = (await tx.execute(query)).one_or_none()
    return None if found is None else Earlier(found.resource_id, found.parameters_sha256)


async def claim_key(
    tx: Tx,
    consumer_id: UUID,
    key_sha256: bytes,
    parameters_sha256: bytes,
    resource_id: UUID,
    *,
    ttl: timedelta,
) -> Earlier | None:
    """Keeps that the key leads to this resource, with the commit of `tx`; or what it has led to within `ttl`. Who comes at
    the same moment waits until the first one has ended."""
    keys = idempotency_keys.c
    row = {
        "parameters_sha256": parameters_sha256,
        "resource_id": resource_id,
        "created_at": func.clock_timestamp(),
    }
    claim = upsert(idempotency_keys).values(consumer_id=consumer_id, key_sha256=key_sha256, **row)
    claim = claim.on_conflict_do_update(
        index_elements=[keys.consumer_id, keys.key_sha256],
        set_=row,
        where=keys.created_at < func.clock_timestamp() - literal(ttl),
    )
    if (await tx.execute(claim.returning(keys.resource_id))).one_or_none() is not None:
        return None
    query = select(keys.resource_id, keys.parameters_sha256).where(
        keys.consumer_id == consumer_id, keys.key_sha256 == key_sha256
    )
    found = (await tx.execute(query)).one()
    return Earlier(found.resource_id, found.parameters_sha256)


async def add(
    tx: Tx,
    delivery_id: UUID,
    owner: Owner,
    wanted: Wanted,
    *,
    grant_id: UUID,
    sealed_request: bytes,
    due_at: datetime,
) -> None:
    """A delivery that is not of a batch."""
    await tx.execute(
        insert(deliveries).values(
            id=delivery_id,
            **_common(owner, wanted, grant_id),
            sealed_request=sealed_request,
            next_attempt_at=due_at,
        )
    )


async def add_batch(tx: Tx, batch_id: UUID, owner: Owner, wanted: WantedBatch) -> None:
    """The batch itself."""
    await tx.execute(
        insert(delivery_batches).values(
            id=batch_id,
            consumer_id=owner.id,
            consumer=owner.name,
            **_key(wanted.key),
            method=wanted.method,
            path=wanted.path,
            total=len(wanted.records),
            records_per_request=wanted.records_per_request,
            concurrency=wanted.concurrency,
            wrap=wanted.wrap,
        )
    )


async def add_chunks(
    tx: Tx, batch_id: UUID, owner: Owner, wanted: WantedBatch, chunks: Sequence[Chunk], *, grant_id: UUID
) -> None:
    """Its deliveries, in a statement for each thousand, or each mebibyte."""
    common = {"batch_id": batch_id, **_common(owner, wanted, grant_id)}
    given = {name: bindparam(name, value, deliveries.c[name].type) for name, value in common.items()}
    added = insert(deliveries).from_select(
        [*Chunk._fields, *given],
        select(*(_CHUNK.c[name] for name in Chunk._fields), *given.values()),
        include_defaults=False,
    )
    for rows in _portions(chunks):
        columns = zip(*rows, strict=True)
        await tx.execute(added, dict(zip(map(_given, Chunk._fields), map(list, columns), strict=True)))


def _portions(chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    portion: list[Chunk] = []
    size = 0
    for chunk in chunks:
        if portion and (len(portion) >= _ROWS or size + len(chunk.sealed_request) > _BYTES):
            yield portion
            portion, size = [], 0
        portion.append(chunk)
        size += len(chunk.sealed_request)
    if portion:
        yield portion


def _given(name: str) -> str:
    return f"chunk_{name}"


_CHUNK_TYPES: dict[str, Any] = {
    "id": PG_UUID,
    "first_record": Integer,
    "records": Integer,
    "sealed_request": LargeBinary,
    "next_attempt_at": DateTime(timezone=True),
}
_CHUNK = (
    func.unnest(*(bindparam(_given(name), type_=ARRAY(kind)) for name, kind in _CHUNK_TYPES.items()))
    .table_valued(*_CHUNK_TYPES, name="chunk")
    .render_derived()
)


def _common(owner: Owner, wanted: Wanted | WantedBatch, grant_id: UUID) -> dict[str, Any]:
    return {
        "consumer_id": owner.id,
        "consumer": owner.name,
        **_key(wanted.key),
        "grant_id": grant_id,
        "method": wanted.method,
        "path": wanted.path,
        "retry_on": None if wanted.retry_on is None else list(wanted.retry_on),
        "max_attempts": wanted.max_attempts,
    }


def _key(key: GrantKey) -> dict[str, Any]:
    return {"provider": key.provider, "user_id": key.user_id, "account": key.account}
