"""Finding what is due costs the same however much is due: the plans, with a hundred thousand rows."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.db import Database
from app.grants import due_store
from app.grants.grant import LeanGrant
from tests.plans import rows_read, statements
from tests.postgres import database

LIMIT = 16
# Of each ten grants eight are due at one provider and one at another, half of them in the time that is to come; the
# tenth is not due.
_ROWS = """
INSERT INTO grants (
  id, provider, user_id, lineage_id, sealed_refresh_token, refresh_fingerprint, expires_at, issued_ttl_seconds,
  next_refresh_at)
SELECT gen_random_uuid(), CASE WHEN n % 10 < 2 THEN 'small' ELSE 'large' END, 'user-' || n, gen_random_uuid(),
  '\\x00', sha256(n::text::bytea), now() + interval '10 minutes', 3600,
  now() + CASE WHEN n % 10 = 0 THEN interval '1 hour' ELSE (n - 50000) * interval '3 milliseconds' END
FROM generate_series(1, 100000) AS n
"""


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    async with database(database_url) as connection:
        await connection.execute(_ROWS)
        await connection.execute("VACUUM ANALYZE grants")
    db = Database(database_url, pool_size=1)
    yield db
    await db.close()


async def _take(db: Database, *, since: datetime | None = None) -> list[LeanGrant]:
    now = datetime.now(UTC)
    return await due_store.take(
        db.statements, "large", cutoff=now + timedelta(minutes=5), tick_started=now, since=since,
        postpone_to=now + timedelta(minutes=7), limit=LIMIT,
    )  # fmt: skip


async def _explained(
    url: str, statement: str, parameters: tuple[Any, ...], *, mode: str
) -> tuple[str, dict[str, Any]]:
    """What PostgreSQL really did, undone: as text, and as the tree of its nodes."""
    async with database(url) as connection:
        await connection.execute(f"SET plan_cache_mode = {mode}; PREPARE asked AS {statement}")
        transaction = connection.transaction()
        await transaction.start()
        execute = f"EXECUTE asked ({', '.join(map(_literal, parameters))})"
        [[plan]] = await connection.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) {execute}")
        await transaction.rollback()
        return plan, json.loads(plan)[0]["Plan"]


def _literal(value: object) -> str:
    if isinstance(value, list):
        return f"ARRAY[{', '.join(map(_literal, value))}]"
    return f"'{value}'"


async def _require_narrow(url: str, asked: tuple[str, tuple[Any, ...]], *, most: int) -> None:
    """Planned for these parameters, and for any."""
    for mode in ("force_custom_plan", "force_generic_plan"):
        text, plan = await _explained(url, *asked, mode=mode)
        assert "grants_provider_due_idx" in text
        assert "Seq Scan" not in text
        assert '"Sort"' not in text
        assert rows_read(plan, {"grants"}) <= most, text


async def test_taking_looks_at_no_more_than_it_takes(db: Database, database_url: str) -> None:
    first = await _take(db)
    for since in (None, first[-1].next_refresh_at):
        with statements() as asked:
            assert len(await _take(db, since=since)) == LIMIT
        await _require_narrow(database_url, asked[-1], most=4 * LIMIT + 1)


async def test_grants_that_others_write_meanwhile_are_taken_once_each_as_they_were(database_url: str) -> None:
    """A row that has moved between the search and its lock is where nobody looked: it is taken by the next who looks."""
    async with database(database_url) as connection:
        await connection.execute(_ROWS.replace("100000", "3000").replace("50000", "3000"))
        due = await connection.fetch(
            "SELECT id, next_refresh_at FROM grants WHERE provider = 'large' AND next_refresh_at < now()"
        )
    taken: list[LeanGrant] = []
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        writers = [group.create_task(_rewrite(database_url, [row["id"] for row in due])) for _ in range(2)]
        async with asyncio.TaskGroup() as takers:
            for _ in range(4):
                takers.create_task(_take_all(database_url, taken, most=len(due)))
        for writer in writers:
            writer.cancel()
    assert sorted((grant.id, grant.next_refresh_at) for grant in taken) == sorted(map(tuple, due))


async def _rewrite(url: str, ids: list[UUID]) -> None:
    """Moves rows, again and again, and changes nothing."""
    async with database(url) as connection:
        while True:
            await connection.execute(
                "UPDATE grants SET failures = failures WHERE id = $1", random.choice(ids)
            )


async def _take_all(url: str, taken: list[LeanGrant], *, most: int) -> None:
    db = Database(url, pool_size=1)
    try:
        while len(taken) < most:
            taken.extend(await _take(db))
    finally:
        await db.close()


async def test_finding_the_providers_looks_at_one_row_of_each(db: Database, database_url: str) -> None:
    names, cutoff = ["none", "large", "small"], datetime.now(UTC) + timedelta(minutes=5)
    with statements() as asked:
        async with db.begin() as tx:
            assert await due_store.providers(tx, names, cutoff=cutoff) == ["large", "small"]
    await _require_narrow(database_url, asked[-1], most=len(names))


async def test_putting_back_restores_what_nobody_has_tried(db: Database, database_url: str) -> None:
    taken = await _take(db)
    async with database(database_url) as connection:
        await connection.execute(
            "UPDATE grants SET attempt_id = id, takeover_at = now() WHERE id = $1", taken[0].id
        )
        await connection.execute("UPDATE grants SET next_refresh_at = now() WHERE id = $1", taken[1].id)
        [postponed_to] = {
            row["next_refresh_at"]
            for row in await connection.fetch(
                "SELECT next_refresh_at FROM grants WHERE id = ANY($1)", [grant.id for grant in taken[2:]]
            )
        }
        async with db.begin() as tx:
            put_back = await due_store.put_back(tx, taken, postponed_to=postponed_to)
        assert put_back == {grant.id for grant in taken[2:]}
        again = await _take(db)
    assert again[: LIMIT - 2] == taken[2:]
