"""Nothing that is asked for a caller, or every few seconds, costs more with more grants: the plans of all that the service
asks, as it asks it, with many grants, a long history and many keys."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.clock import SystemClock
from app.db import Database
from app.grants.seeding import Seeder
from app.oauth.client import OAuthClient
from app.oauth.load import load_catalogue
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring, settings_for
from tests.plans import done_once_more, generic_plan, nodes, rows_read, statements
from tests.postgres import database
from tests.vault import keeping, keys_of_tests

GRANTS = 30_000
LARGE = {"grants", "refresh_attempts", "audit_events", "audit_chain", "api_keys", "consumers"}
CANDIDATES = (
    "grant_candidates"  # they go after a day, a thousand at a time, for which all of them may be read
)
WRITTEN_BEHIND = ("UPDATE grants SET last_used_at",)
MOST = 300  # rows that one statement may read: three pages of a list
_MORE = """
INSERT INTO refresh_attempts (id, grant_id, lineage_id, epoch, replica, trigger, outcome, milliseconds, generation, spent_fingerprint, at)
  SELECT gen_random_uuid(), id, lineage_id, n, 'a', 'scheduler', 'refreshed', 1, n, sha256(id::text::bytea), now() - n * interval '1 hour'
  FROM grants, generate_series(1, 3) AS n;
INSERT INTO grant_candidates (id, grant_id, lineage_id, sealed_tokens, sent_at)
  SELECT gen_random_uuid(), id, lineage_id, '', now() FROM grants LIMIT 10000;
ALTER TABLE audit_events DISABLE TRIGGER USER;
INSERT INTO audit_events (id, actor, action, provider, user_id, grant_id)
  SELECT gen_random_uuid(), 'a', 'grant.refreshed', provider, user_id, id FROM grants;
ALTER TABLE audit_events ENABLE TRIGGER USER;
INSERT INTO audit_chain SELECT 1000000 + row_number() OVER (ORDER BY id), id, sha256(''), id, 1, at FROM audit_events WHERE actor = 'a';
INSERT INTO consumers (id, name, scopes) SELECT gen_random_uuid(), 'consumer-' || n, '{}' FROM generate_series(1, 10000) AS n;
INSERT INTO api_keys (id, consumer_id, secret_sha256)
  SELECT lpad(to_hex(row_number() OVER ()), 16, '0'), id, sha256('') FROM consumers;
"""
_HISTORY = """
INSERT INTO refresh_attempts (id, grant_id, lineage_id, epoch, replica, trigger, outcome, milliseconds, generation, spent_fingerprint, at)
  SELECT gen_random_uuid(), $1, $1, n, 'a', 'scheduler', 'refreshed', 1, n, sha256(n::text::bytea), now() - n * interval '1 hour'
  FROM generate_series(1, 9000) AS n
"""
# What is indexed of all that refers to others: a row that goes, or is referred to, is found by it.
_FOREIGN_KEYS_WITHOUT_INDEX = """
SELECT conrelid::regclass::text FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace
  AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = conrelid AND indisvalid AND indkey[0] = conkey[1])
"""


@pytest.fixture
async def large_url(database_url: str) -> str:
    db = Database(database_url, pool_size=1)
    async with keeping(database_url, keys_of_tests()) as (vault, _):
        seeder = Seeder(db, vault, SystemClock(), margin=timedelta(minutes=5))
        client = OAuthClient("google", load_catalogue()["google"])
        async for _ in seeder.seed(client, count=GRANTS, users="user-", due=0.05):
            pass
    await db.close()
    async with database(database_url) as connection:
        await connection.execute(_MORE)
        await connection.execute("VACUUM ANALYZE")
    return database_url


@pytest.fixture
async def large(large_url: str, providers_dir: Path, tmp_path: Path) -> AsyncIterator[Broker]:
    """A broker whose providers' grants are due at once; the seeded ones are another's."""
    settings = settings_for(large_url, providers_dir, data_dir=tmp_path / "var")
    async with Broker.running(settings) as broker:
        yield broker


async def _add_history(url: str, grant_id: str) -> None:
    """A year of it."""
    async with database(url) as connection:
        await connection.execute(_HISTORY, UUID(grant_id))
        await connection.execute("VACUUM ANALYZE refresh_attempts")


async def _require_narrow(
    url: str, asked: Sequence[tuple[str, Sequence[Any]]], *, large: Collection[str] = LARGE
) -> None:
    """Planned for any parameters it is found by an index; done with these once more it reads little."""
    wide = []
    async with database(url) as connection:
        for text, given in {text: (text, given) for text, given in asked}.values():
            if not re.match(r"(SELECT|INSERT|UPDATE|DELETE|WITH)\b", text.lstrip(" (")):
                continue
            parameters = given[0] if isinstance(given, list) else given  # for several rows at once
            plans = [await generic_plan(connection, text, len(parameters))]
            plans += [done] if (done := await done_once_more(connection, text, parameters)) else []
            for plan in plans:
                wide += [
                    f"{reason}:\n{text}\n{json.dumps(plan, indent=1)}" for reason in _why_wide(plan, large)
                ]
    assert wide == [], "\n".join(wide)


def _why_wide(plan: dict[str, Any], large: Collection[str]) -> Iterator[str]:
    """Why it costs more with more rows."""
    for node in nodes(plan):
        if node.get("Relation Name") in large and node["Node Type"] == "Seq Scan":
            yield f"reads all of {node['Relation Name']}"
        if node["Node Type"] == "Sort" and node.get("Actual Rows", 0) > MOST:
            yield f"sorts {node['Actual Rows']} rows"
    if "Actual Rows" in plan and (number := rows_read(plan, large)) > MOST:
        yield f"reads {number} rows"


def _lacking(asked: list[tuple[str, tuple[Any, ...]]], *fragments: str) -> list[str]:
    """Those fragments that nothing of what was asked has."""
    return [each for each in fragments if not any(each in " ".join(text.split()) for text, _ in asked)]


async def test_what_callers_ask_for_is_found_by_indexes(
    large: Broker, large_url: str, sandbox: Sandbox
) -> None:
    with statements() as asked:
        await large.token("google/user-17", min_ttl=1)
        items = [{"provider": "google", "user_id": f"user-{number}"} for number in (18, 19)]
        assert (await large.http.post("/tokens/batch", json={"items": items})).status_code == 200
        await large.put("sandbox/ada", bring(sandbox.grant("ada")))
        ada = await large.token("sandbox/ada")
        await large.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
        await _add_history(large_url, ada["grant_id"])
        for wanted in ({"generation": 3}, {}):
            await large.http.post("/tokens/sandbox/ada/refresh", json=wanted)
        for path in (ada["grant_id"], f"{ada['grant_id']}/history?limit=2"):
            answer = await large.http.get(f"/grants/{path}")
            assert answer.status_code == 200, answer.text
        await large.http.get(
            f"/grants/{ada['grant_id']}/history", params={"cursor": answer.json()["next_cursor"]}
        )
        sandbox.revoke("ada")
        await large.http.post("/tokens/sandbox/ada/refresh", json={"generation": 4})
        await large.http.get("/grants")
        await large.http.get("/audit")
        await large.put("google/user-20", {"access_token": "a", "refresh_token": "r", "expires_in": 3600})
        await large.http.delete("/grants/google/user-21")
    wanted_parts = (
        "UPDATE grants SET",
        "INSERT INTO refresh_attempts",
        "FROM api_keys",
        "refresh_attempts.trigger =",
    )
    assert _lacking(asked, *wanted_parts) == []
    await _require_narrow(large_url, asked, large={*LARGE, CANDIDATES})


async def test_what_the_timetable_asks_for_is_found_by_indexes(
    large: Broker, large_url: str, sandbox: Sandbox
) -> None:
    with statements() as asked:
        for user in ("ada", "bob"):
            await large.put(f"sandbox/{user}", bring(sandbox.grant(user), expires_in=1))
        await large.token("google/user-17", min_ttl=1)
        assert (await large.http.post("/refresh/run")).status_code == 200
        for job in large.services.timetable.jobs:
            await job.work()
        async with asyncio.timeout(10):  # uses are noted some moments after the answer
            while _lacking(asked, *WRITTEN_BEHIND):
                await asyncio.sleep(0.05)
                await large.run("flush_uses")
    wanted_parts = (
        "SKIP LOCKED",
        "UPDATE grants SET next_refresh_at",
        "DELETE FROM grant_candidates",
    )
    assert _lacking(asked, *wanted_parts) == []
    await _require_narrow(large_url, asked)


async def test_rows_that_refer_to_others_are_found_by_that(large_url: str) -> None:
    """Else each that goes, and each that is referred to, costs a look at all of them."""
    async with database(large_url) as connection:
        assert await connection.fetch(_FOREIGN_KEYS_WITHOUT_INDEX) == []
