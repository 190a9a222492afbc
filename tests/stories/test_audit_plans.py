"""GET /audit costs the same however long the trail is: each filter has an index, and times bound the ids."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.audit import store
from app.audit.event import Filter
from app.db import Database
from tests.plans import statements
from tests.postgres import database

NOW = datetime.now(UTC)
GRANT = UUID(int=7)
# A month of events, ten seconds apart. What is asked for is rare, and is in the oldest part.
_ROWS = """
INSERT INTO audit_events (id, actor, action, provider, user_id, grant_id, request_id, at)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7000' || '8000' || lpad(to_hex(n), 12, '0'))::uuid,
  CASE WHEN n < 20 THEN 'rare' ELSE 'broker' END, CASE WHEN n < 20 THEN 'rare' ELSE 'grant.refreshed' END,
  CASE WHEN n < 20 THEN 'rare' WHEN n % 3 = 0 THEN NULL ELSE 'google' END,
  CASE WHEN n < 20 THEN 'rare' ELSE 'user-' || n % 5000 END, CASE WHEN n < 20 THEN $1 ELSE gen_random_uuid() END,
  CASE WHEN n < 20 THEN 'rare' WHEN n % 2 = 0 THEN 'request-' || n END, at
FROM (SELECT n, $2::timestamptz - (250000 - n) * interval '10 seconds' AS at FROM generate_series(1, 250000) AS n) AS numbered
"""
WANTED = {
    "actor": Filter(actor="rare"),
    "action": Filter(action="rare"),
    "provider": Filter(provider="rare"),
    "user_id": Filter(user_id="rare"),
    "grant_id": Filter(grant_id=GRANT),
    "request_id": Filter(request_id="rare"),
    "nothing": Filter(),
    "since": Filter(since=NOW - timedelta(hours=2)),
    "until": Filter(until=NOW - timedelta(days=25)),
    "both": Filter(since=NOW - timedelta(days=20), until=NOW - timedelta(days=15)),
    "all": Filter(actor="rare", user_id="rare", since=NOW - timedelta(days=40), until=NOW),
}


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    async with database(database_url) as connection:
        await connection.execute("ALTER TABLE audit_events DISABLE TRIGGER queue_audit_events")
        await connection.execute(_ROWS, GRANT, NOW)
        await connection.execute(
            "INSERT INTO audit_chain SELECT row_number() OVER (ORDER BY id), id, sha256(''), id, 1, at FROM audit_events"
        )
        await connection.execute("VACUUM ANALYZE audit_events")
        await connection.execute("VACUUM ANALYZE audit_chain")
    db = Database(database_url, pool_size=1)
    yield db
    await db.close()


def _rows_read(node: dict[str, Any]) -> int:
    own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    return round(own if "Relation Name" in node else 0) + sum(map(_rows_read, node.get("Plans", ())))


async def test_no_filter_looks_at_much_more_than_it_answers(db: Database, database_url: str) -> None:
    hour = 360  # events: how far ids and times may be apart
    for name, wanted in WANTED.items():
        with statements() as asked:
            async with db.begin() as tx:
                found = await store.listed(tx, wanted, before=None, limit=51)
        assert found, name
        text, values = asked[-1]
        async with database(database_url) as connection:
            [[plan]] = await connection.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", *values)
        assert "Seq Scan" not in plan, (name, plan)
        assert _rows_read(json.loads(plan)[0]["Plan"]) <= 4 * 51 + hour, (name, plan)
