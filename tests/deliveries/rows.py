"""Deliveries put into PostgreSQL past the service, as accepting them does it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from app.deliveries.delivery import Content, request_place
from app.ids import uuid7
from app.vault.vault import Vault
from tests.postgres import database

CONSUMER = UUID(int=7)
_COLUMNS = (
    "id", "consumer_id", "consumer", "batch_id", "first_record", "records", "provider", "user_id", "account", "grant_id",
    "method", "path", "sealed_request", "retry_on", "max_attempts", "next_attempt_at",
)  # fmt: skip


async def put_one(
    url: str,
    vault: Vault,
    *,
    body: str | None = '[{"n": 1}]',
    headers: Sequence[tuple[str, str]] = (),
    provider: str = "records",
    user: str = "ada",
    method: str = "POST",
    path: str = "records",
    max_attempts: int = 8,
    retry_on: Sequence[int] | None = None,
    due_in: timedelta = timedelta(0),
) -> UUID:
    """A delivery that is not of a batch, due now."""
    now = datetime.now(UTC)
    id = uuid7(now)
    sealed = vault.seal(Content(tuple(headers), body).text(), request_place(id))
    row = (
        id, CONSUMER, "tests", None, None, 1, provider, user, "default", await _grant_id(url, provider, user), method, path,
        sealed, retry_on, max_attempts, now - timedelta(seconds=1) + due_in,
    )  # fmt: skip
    async with database(url) as connection:
        await connection.copy_records_to_table("deliveries", records=[row], columns=_COLUMNS)
    return id


async def put_batch(
    url: str,
    vault: Vault,
    records: Sequence[Any],
    *,
    per_request: int = 10,
    concurrency: int = 4,
    wrap: str | None = None,
    provider: str = "records",
    user: str = "ada",
    path: str = "records",
    max_attempts: int = 8,
    retry_on: Sequence[int] | None = None,
) -> UUID:
    """A batch; of its deliveries the first `concurrency` are due now."""
    now = datetime.now(UTC)
    batch_id, grant_id, rows = uuid4(), await _grant_id(url, provider, user), []
    for place, first in enumerate(range(0, len(records), per_request)):
        chunk = tuple(json.dumps(each) for each in records[first : first + per_request])
        id = uuid7(now + place * timedelta(microseconds=1))
        sealed = vault.seal(Content(records=chunk).text(), request_place(id))
        due = now - timedelta(seconds=1) if place < concurrency else None
        rows.append(
            (id, CONSUMER, "tests", batch_id, first, len(chunk), provider, user, "default", grant_id, "POST", path,
             sealed, retry_on, max_attempts, due)
        )  # fmt: skip
    async with database(url) as connection, connection.transaction():
        await connection.execute(
            "INSERT INTO delivery_batches (id, consumer_id, consumer, provider, user_id, account, method, path, total,"
            " records_per_request, concurrency, wrap) VALUES ($1, $2, 'tests', $3, $4, 'default', 'POST', $5, $6, $7, $8, $9)",
            batch_id, CONSUMER, provider, user, path, len(records), per_request, concurrency, wrap,
        )  # fmt: skip
        await connection.copy_records_to_table("deliveries", records=rows, columns=_COLUMNS)
    return batch_id


async def _grant_id(url: str, provider: str, user: str) -> UUID:
    """The grant's; of one that is not there any id."""
    async with database(url) as connection:
        query = "SELECT id FROM grants WHERE provider = $1 AND user_id = $2 AND status <> 'revoked'"
        return await connection.fetchval(query, provider, user) or uuid4()


async def row(url: str, id: UUID) -> dict[str, Any]:
    async with database(url) as connection:
        found = await connection.fetchrow("SELECT * FROM deliveries WHERE id = $1", id)
    assert found is not None
    return dict(found)


async def rows_of(url: str, batch_id: UUID) -> list[dict[str, Any]]:
    async with database(url) as connection:
        query = "SELECT * FROM deliveries WHERE batch_id = $1 ORDER BY first_record, id"
        return [dict(each) for each in await connection.fetch(query, batch_id)]


async def history(url: str, id: UUID) -> list[dict[str, Any]]:
    """Its attempts, in their order."""
    async with database(url) as connection:
        query = "SELECT * FROM delivery_attempts WHERE delivery_id = $1 ORDER BY number"
        return [dict(each) for each in await connection.fetch(query, id)]


async def run(url: str, statement: str, *arguments: Any) -> None:
    async with database(url) as connection:
        await connection.execute(statement, *arguments)
