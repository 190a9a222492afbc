"""What calendars ask of PostgreSQL all the time costs the same however many there are: the plans, with a hundred thousand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.calendars import reading_store, store, sync_store
from app.db import Database
from app.ids import uuid7
from tests.plans import done_once_more, generic_plan, nodes, rows_read, statements
from tests.postgres import database

LIMIT = 16
LARGE = {"calendars", "calendar_sync_states", "calendar_accounts", "calendar_events", "grants"}
_GRANTS = """
INSERT INTO grants (
  id, provider, user_id, lineage_id, sealed_refresh_token, refresh_fingerprint, expires_at, issued_ttl_seconds)
SELECT gen_random_uuid(), 'google', 'user-' || n, gen_random_uuid(), '\\x00', sha256(n::text::bytea),
  now() + interval '10 minutes', 3600
FROM generate_series(1, {grants}) AS n;
INSERT INTO calendar_accounts (grant_id, scheduled, next_list_at)
SELECT id, n % 10 <> 0, now() + CASE WHEN n % 10 = 1 THEN interval '1 hour' ELSE n * interval '-1 ms' END
FROM (SELECT id, row_number() OVER () AS n FROM grants) AS numbered;
INSERT INTO calendars (id, grant_id, external_id, name, access_role, is_primary)
SELECT gen_random_uuid(), grant_id, 'calendar-' || n, 'A calendar', 'owner', n = 1
FROM calendar_accounts, generate_series(1, 2) AS n
"""
# Of ten calendars eight are due, one is later, and one nobody asked the schedule for.
_STATES = """
INSERT INTO calendar_sync_states (id, grant_id, scheduled, next_attempt_at)
SELECT id, grant_id, n % 10 <> 0, now() + CASE WHEN n % 10 = 1 THEN interval '1 hour' ELSE n * interval '-1 ms' END
FROM (SELECT id, grant_id, row_number() OVER () AS n FROM calendars) AS numbered
"""
# An event each hour of more than a year; of each fifty one is a series, and one an exception of it.
_EVENTS = """
INSERT INTO calendar_events (
  calendar_id, external_id, kind, status, master_id, start_at, end_at, raw, generation, since, until)
SELECT calendars.id, 'event-' || n, CASE WHEN n % 50 = 0 THEN 'series' WHEN n % 50 = 1 THEN 'exception' ELSE 'single' END,
  'confirmed', CASE WHEN n % 50 = 1 THEN 'event-' || n - 1 END, at, at, '{}', 1, at, at
FROM calendars, generate_series(0, 9999) AS n,
  LATERAL (SELECT timestamptz '2026-01-01Z' + n * interval '1 hour' AS at) AS times
"""


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    db = Database(database_url, pool_size=1)
    yield db
    await db.close()


async def _fill(url: str, *statements: str) -> None:
    async with database(url) as connection:
        for statement in statements:
            await connection.execute(statement)
        await connection.execute("VACUUM ANALYZE")


async def _require_narrow(url: str, asked: tuple[str, tuple[Any, ...]], index: str, *, most: int) -> None:
    """Planned for any parameters, and done with these, it goes by that index and reads no more than `most` rows."""
    statement, parameters = asked
    async with database(url) as connection:
        planned = await generic_plan(connection, statement, len(parameters))
        done = await done_once_more(connection, statement, parameters)
    assert done is not None
    for plan in (planned, done):
        assert index in {node.get("Index Name") for node in nodes(plan)}, plan
        assert not [
            node for node in nodes(plan) if node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE
        ], plan
    assert rows_read(done, LARGE) <= most, done


async def test_claiming_what_is_due_looks_at_no_more_than_it_takes(db: Database, database_url: str) -> None:
    await _fill(database_url, _GRANTS.format(grants=50_000), _STATES)
    with statements() as asked:
        async with db.begin() as tx:
            owner, ttl = uuid7(datetime.now(UTC)), timedelta(seconds=90)
            assert len(await sync_store.claim_due(tx, owner=owner, ttl=ttl, limit=LIMIT)) == LIMIT
    [claim] = asked
    await _require_narrow(database_url, claim, "calendar_sync_states_due_idx", most=8 * LIMIT)
    with statements() as asked:
        async with db.begin() as tx:
            assert len(await store.take_due_lists(tx, rest=timedelta(minutes=1), limit=LIMIT)) == LIMIT
    [taking] = asked
    await _require_narrow(database_url, taking, "calendar_accounts_due_idx", most=8 * LIMIT)


async def test_a_week_is_read_without_other_calendars_and_earlier_events(
    db: Database, database_url: str
) -> None:
    await _fill(database_url, _GRANTS.format(grants=5), _EVENTS)
    begins = datetime(2026, 1, 1, tzinfo=UTC)
    since, until = begins + timedelta(days=380), begins + timedelta(days=387)
    async with database(database_url) as connection:
        ids = [row[0] for row in await connection.fetch("SELECT DISTINCT calendar_id FROM calendar_events")]
    with statements() as asked:
        async with db.begin() as tx:
            found = await reading_store.events_between(tx, ids[:2], since, until, limit=20_001)
    assert [len(each) for each in found.values()] == [7 * 24, 7 * 24]
    [reading] = asked
    later = 10_000 - 380 * 24
    await _require_narrow(database_url, reading, "calendar_events_until_idx", most=2 * later + 200)
