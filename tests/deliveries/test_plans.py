"""Whatever waits, a claim costs what it costs: the plans of the worker's statements with a million deliveries, what they read
compared with ten thousand, and that no sequential scan is among them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from app.clock import SystemClock
from app.db import Database
from app.deliveries import claim_store, deciding_store, sweep_store, turn_store
from app.deliveries.category import Verdict
from app.deliveries.claimed import ending
from app.deliveries.delivery import DeliveryStatus
from app.deliveries.endings import Endings
from tests.plans import generic_plan, nodes, rows_read, statements
from tests.postgres import database

FEW, MANY = 10_000, 1_000_000
LARGE = {"deliveries", "delivery_batches", "delivery_attempts", "idempotency_keys"}
MOST = 400  # rows that one statement may read
# Of each ten one is a batch's, of which most wait for their turn; one ended long ago, one is dead. The others are due, at three
# providers, or will be.
_ROWS = """
INSERT INTO deliveries (id, consumer_id, consumer, batch_id, first_record, provider, user_id, account, grant_id, method, path,
  sealed_request, max_attempts, status, next_attempt_at, ended_at)
SELECT ('01a20000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, '00000000-0000-0000-0000-000000000007', 'tests',
  CASE WHEN n % 10 = 0 THEN ('00000000-0000-0000-0000-' || lpad((n / 1000)::text, 12, '0'))::uuid END, n,
  'p' || n % 3, 'ada', 'default', '00000000-0000-0000-0000-00000000000a', 'POST', 'records', '\\x00', 8,
  CASE n % 10 WHEN 1 THEN 'delivered' WHEN 2 THEN 'dead' ELSE 'queued' END,
  CASE WHEN n % 10 IN (1, 2) OR n % 10 = 0 AND n % 1000 <> 0 THEN NULL
    WHEN n IN (1000, 11000) THEN now() - interval '2 hours' ELSE now() + (n - $2::int / 2) * interval '1 hour' / $2::int END,
  CASE WHEN n % 10 IN (1, 2) THEN now() - n * interval '60 days' / $2::int END
FROM generate_series($1::int, $2::int) AS n
"""
_UNUSED = "DROP INDEX IF EXISTS deliveries_consumer_idx, deliveries_status_idx"  # by the worker; and so it goes faster
_BATCHES = """
INSERT INTO delivery_batches (id, consumer_id, consumer, provider, user_id, account, method, path, total,
  records_per_request, concurrency, created_at)
SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, '00000000-0000-0000-0000-000000000007', 'tests',
  'p0', 'ada', 'default', 'POST', 'records', 100, 1, 4,
  now() - (n * 7919 % 20001) * interval '60 days' / 20000 FROM generate_series(0, 20000) AS n
ON CONFLICT DO NOTHING
"""
_ATTEMPTS = """
INSERT INTO delivery_attempts (id, delivery_id, number, replica) SELECT id, id, 1, 'a' FROM deliveries
  WHERE first_record BETWEEN $1::int AND $2::int AND first_record % 5 = 2
"""
_KEYS = """
INSERT INTO idempotency_keys SELECT gen_random_uuid(), sha256(n::text::bytea), '', gen_random_uuid(),
  now() - n * interval '2 days' / $2::int FROM generate_series($1::int, $2::int, 5) AS n
"""
_STUCK = """
UPDATE deliveries SET status = 'sending', claim_id = id, replica = 'gone', sending_since = now() - interval '1 hour',
  next_attempt_at = NULL
WHERE id IN (SELECT id FROM deliveries WHERE next_attempt_at > now() AND batch_id IS NULL LIMIT 20)
"""


@dataclass(frozen=True)
class Cost:
    rows: int
    buffers: int


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    db = Database(database_url, pool_size=1)
    yield db
    await db.close()


async def test_what_the_worker_asks_reads_as_little_whatever_waits(db: Database, database_url: str) -> None:
    await _fill(database_url, 1, FEW)
    few = await _costs(db, database_url)
    await _fill(database_url, FEW + 1, MANY)
    many = await _costs(db, database_url)
    for name, of_few in few.items():
        of_many = many[name]
        assert of_many.rows <= max(MOST, of_few.rows), (name, of_few, of_many)
    assert many["claim"].rows == few["claim"].rows
    assert many["claim"].buffers <= 1.5 * few["claim"].buffers  # an index is a level higher


async def _costs(db: Database, url: str) -> dict[str, Cost]:
    """Of each statement, which is done for real once, as often again as it has to be for that, and undone."""
    taken = await _claim(db)
    assert len(taken.claimed) == 16
    of_batch = next(each for each in taken.claimed if each.batch_id is not None)
    assert of_batch.batch_id is not None
    endings, batch_id = Endings(db, SystemClock()), of_batch.batch_id
    work: dict[str, Callable[[], Awaitable[object]]] = {
        "claim": lambda: _claim(db),
        "stuck": lambda: claim_store.stuck(db.statements, after=timedelta(minutes=5), limit=100),
        "end": lambda: endings.end(of_batch, ending(of_batch, Verdict(None, status=200))),
        "turn": lambda: _turn(db, batch_id),
        "decide": lambda: _decide(db, batch_id),
        "sweep": lambda: _sweep(db),
    }
    costs = {}
    for name, ask in work.items():
        with statements() as asked:
            await ask()
        for number, (statement, parameters) in enumerate(asked):
            costs[f"{name} {number}" if number else name] = await _cost(url, name, statement, parameters)
    return costs


async def _claim(db: Database) -> claim_store.Taken:
    return await claim_store.claim(db.statements, replica="here", most=16, each=8, rooms={"p2": 3})


async def _turn(db: Database, batch_id: UUID) -> None:
    async with db.begin() as tx:
        await turn_store.lock_batch(tx, batch_id)
        await turn_store.give_turns(tx, batch_id)


async def _decide(db: Database, batch_id: UUID) -> None:
    async with db.begin() as tx:
        await deciding_store.lock_batch(tx, batch_id)
        await deciding_store.waiting_records(tx, batch_id)
        await deciding_store.replay_dead(tx, batch_id, after=UUID(int=0), limit=100)
        await deciding_store.cancel_waiting(tx, batch_id, limit=100)


async def _sweep(db: Database) -> None:
    async with db.begin() as tx:
        await deciding_store.half_cancelled(tx, limit=100)
        await sweep_store.sweep(tx, DeliveryStatus.DELIVERED, kept_for=timedelta(days=30), limit=100)
        await sweep_store.sweep_keys(tx, kept_for=timedelta(days=1), limit=100)
        page = await sweep_store.old_batches(tx, after=None, kept_for=timedelta(days=30), limit=20)
        await sweep_store.old_batches(tx, after=page[0], kept_for=timedelta(days=30), limit=20)
        batch_ids = [id for _, id in page]
        await sweep_store.lock_ended(tx, batch_ids, kept_for=timedelta(days=30))
        await sweep_store.forget(tx, batch_ids, kept_for=timedelta(days=30))
        await sweep_store.sweep_forgotten(tx, limit=100)


async def _cost(url: str, name: str, statement: str, parameters: Sequence[Any]) -> Cost:
    """What it took with these parameters. Neither for these nor for any is a large table read through."""
    async with database(url) as connection:
        generic = await generic_plan(connection, statement, len(parameters))
        transaction = connection.transaction()
        await transaction.start()
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
        try:
            [[text]] = await connection.fetch(explain, *parameters)
            done = dict(json.loads(text)[0]["Plan"])
        except asyncpg.IntegrityConstraintViolationError:  # a claim does not end twice
            done = {}
        await transaction.rollback()
    for plan in filter(None, (generic, done)):
        through = [
            each for each in nodes(plan) if each["Node Type"] == "Seq Scan" and each["Relation Name"] in LARGE
        ]
        assert not through, (name, statement, json.dumps(plan, indent=1))
    if not done:
        return Cost(0, 0)
    return Cost(rows_read(done, LARGE), done["Shared Hit Blocks"] + done["Shared Read Blocks"])


async def _fill(url: str, first: int, last: int) -> None:
    async with database(url) as connection:
        await connection.execute(_UNUSED)
        await connection.execute(_BATCHES)
        for statement in (_ROWS, _ATTEMPTS, _KEYS):
            await connection.execute(statement, first, last)
        await connection.execute(_STUCK)
        await connection.execute("VACUUM ANALYZE")
