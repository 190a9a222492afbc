"""Lists, counts and metrics read no more than they show, with a million deliveries."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import pytest

from app.db import Database, Tx
from app.deliveries import measure_store, reading_store
from app.deliveries.stored import DeliverySelection
from tests.plans import done_once_more, nodes, rows_read, statements
from tests.postgres import database

TABLES = {"deliveries", "delivery_batches", "delivery_attempts"}
LIMIT = 51
OWN = UUID("00000000-0000-0000-0000-000000000001")
BATCH = UUID("00000000-0000-0000-0000-000000000005")
# Of three consumers; of ten one is dead, four have arrived and the others wait. A tenth is in batches of 10,000; of a user
# there are a hundred. The ids lie within the last day, a millionth of it apart.
_ROWS = """
INSERT INTO deliveries (id, consumer_id, consumer, batch_id, first_record, provider, user_id, account, grant_id, method, path,
  sealed_request, max_attempts, attempts, status, category, ended_at)
SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - 86400000 + n * 86), 12, '0') || '7000'
    || '8000' || lpad(to_hex(n), 12, '0'))::uuid,
  ('00000000-0000-0000-0000-' || lpad((n % 3)::text, 12, '0'))::uuid, 'tests',
  CASE WHEN n % 10 = 0 THEN ('00000000-0000-0000-0000-' || lpad((n / 100000)::text, 12, '0'))::uuid END, n,
  'p' || n % 3, 'user-' || n / 100, 'default', '00000000-0000-0000-0000-00000000000a', 'POST', '/records', '\\x00', 8, n % 4,
  CASE WHEN n % 10 = 1 THEN 'dead' WHEN n % 10 < 6 THEN 'delivered' ELSE 'queued' END,
  CASE WHEN n % 10 = 1 THEN 'validation' END,
  CASE WHEN n % 10 < 6 THEN now() END
FROM generate_series(1, 1000000) AS n
"""
_BATCHES = """
INSERT INTO delivery_batches (id, consumer_id, consumer, provider, user_id, account, method, path, total,
  records_per_request, concurrency)
SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, '00000000-0000-0000-0000-000000000001', 'tests',
  'p0', 'ada', 'default', 'POST', '/records', 10000, 1, 4 FROM generate_series(0, 10) AS n
"""
_UNUSED = (
    "DROP INDEX deliveries_due_idx, deliveries_turn_idx, deliveries_sending_idx, deliveries_ended_idx,"
    " deliveries_batch_ended_idx"
)


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    async with database(database_url) as connection:
        for statement in (_UNUSED, _BATCHES, _ROWS, "VACUUM ANALYZE deliveries"):
            await connection.execute(statement)
    db = Database(database_url, pool_size=1)
    yield db
    await db.close()


def _lists() -> dict[str, DeliverySelection]:
    return {
        "own": DeliverySelection(consumer_id=OWN),
        "own dead": DeliverySelection(consumer_id=OWN, status="dead", category="validation"),
        "all": DeliverySelection(),
        "all dead": DeliverySelection(status="dead"),
        "all sending": DeliverySelection(status="sending"),
        "a user's": DeliverySelection(consumer_id=OWN, user_id="user-77"),
        "a user's dead": DeliverySelection(user_id="user-77", status="dead"),
        "a batch's": DeliverySelection(batch_id=BATCH),
        "a batch's dead": DeliverySelection(batch_id=BATCH, status="dead"),
    }


async def test_what_is_looked_at_is_read_from_an_index(db: Database, database_url: str) -> None:
    read: dict[str, int] = {}
    for name, wanted in _lists().items():
        read[name] = await _read(db, database_url, partial(_listed, wanted))
    # What is a tenth of all PostgreSQL may rather find along the primary key, which lies as the table does.
    assert max(read.values()) <= 100 * LIMIT, read
    counted = await _read(db, database_url, lambda tx: reading_store.find_batch(tx, BATCH))
    assert counted <= 10_100
    for owner in (OWN, None):
        measured = await _read(db, database_url, partial(_measured, owner))
        assert measured <= 4 * measure_store.MOST + 10
        standing = await _read(db, database_url, partial(_standing, owner))
        assert standing <= 2 * measure_store.MOST_COUNTED + 100


async def _measured(owner: UUID | None, tx: Tx) -> None:
    now = datetime.now(UTC)
    assert (await measure_store.measured(tx, owner, now=now, within=timedelta(hours=24))).accepted == 20_000


async def _standing(owner: UUID | None, tx: Tx) -> None:
    found = await measure_store.standing(tx, owner)
    assert (found.pending, found.dead) == ((100_000, 100_000) if owner is None else (100_000, 33_334))


async def _listed(wanted: DeliverySelection, tx: Tx) -> None:
    found = await reading_store.listed(tx, wanted, before=None, limit=LIMIT)
    assert [each.id for each in found] == sorted((each.id for each in found), reverse=True)


async def _read(db: Database, url: str, ask: Callable[[Tx], Awaitable[object]]) -> int:
    """Rows that it reads, none of them by reading a table through."""
    with statements() as asked:
        async with db.begin() as tx:
            await ask(tx)
    rows = 0
    async with database(url) as connection:
        for statement, parameters in asked:
            plan = await done_once_more(connection, statement, parameters)
            assert plan is not None
            through = [
                each
                for each in nodes(plan)
                if each["Node Type"] == "Seq Scan" and each.get("Relation Name") == "deliveries"
            ]
            assert not through, (statement, json.dumps(plan, indent=1))
            rows += rows_read(plan, TABLES)
    return rows
