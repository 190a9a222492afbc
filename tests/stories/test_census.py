"""Grants counted by health: the same as each grant says of itself, and seldom enough."""

from __future__ import annotations

import random
import re
from collections import Counter
from datetime import datetime, timedelta

import asyncpg

from app.grants.grant import Grant
from app.grants.selection import Selection
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring
from tests.postgres import as_owner

_AT_RANDOM = """
UPDATE grants SET
  failures = floor(random() * 2),
  expires_at = CASE WHEN random() < 0.2 THEN NULL ELSE clock_timestamp() + (random() * 1200 - 400) * interval '1 s' END,
  next_refresh_at = CASE WHEN random() < 0.3 THEN NULL ELSE clock_timestamp() + (random() * 800 - 400) * interval '1 s' END,
  sealed_refresh_token = CASE WHEN keeps THEN sealed_refresh_token END,
  refresh_fingerprint = CASE WHEN keeps THEN refresh_fingerprint END,
  sealed_access_token = CASE WHEN random() < 0.9 THEN sealed_access_token END,
  attempt_id = CASE WHEN held THEN gen_random_uuid() END,
  takeover_at = CASE WHEN held THEN clock_timestamp() + (random() * 800 - 400) * interval '1 s' END,
  lease_until = CASE WHEN held AND random() < 0.8 THEN clock_timestamp() + (random() * 800 - 400) * interval '1 s' END,
  status = CASE WHEN dead THEN 'reconnect_required' ELSE 'active' END,
  reconnect_reason = CASE WHEN dead THEN 'invalid_grant' END
FROM (SELECT id AS of, random() < 0.7 AS keeps, random() < 0.5 AS held, random() < 0.2 AS dead FROM grants) AS drawn
WHERE id = drawn.of
"""


async def _all_grants(broker: Broker) -> list[Grant]:
    return await broker.services.reader.listed(Selection(), after=None, limit=500)


async def test_a_census_counts_what_each_grant_says_of_itself(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    for number in range(60):
        provider = random.choice(["sandbox", "keeps"])
        await broker.put(f"{provider}/user-{number}", bring(sandbox.grant(f"user-{number}"), expires_in=3600))
    connection = await asyncpg.connect(as_owner(database_url))
    try:
        for _ in range(10):
            await connection.execute(_AT_RANDOM)
            broker.services.counting._good_until = 0
            census = await broker.services.counting.census(within_seconds=10)
            now, grants = broker.services.clock.now(), await _all_grants(broker)
            expected = Counter((grant.key.provider, grant.health(now)) for grant in grants)
            assert {(group.provider, group.health): group.number for group in census.groups} == expected
            active = [grant for grant in grants if grant.status == "active"]
            ends = [grant.expires_at for grant in active if grant.expires_at and grant.expires_at > now]
            assert census.soonest_expiry_at == min(ends, default=None)
            assert census.due == sum(
                grant.next_refresh_at is not None and grant.next_refresh_at <= now for grant in active
            )
    finally:
        await connection.close()


async def test_metrics_and_health_tell_of_grants(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    await broker.put("keeps/eve", {"access_token": "sat_over", "expires_at": "2020-01-01T00:00:00Z"})
    broker.services.counting._good_until = 0
    text = (await broker.http.get("/metrics")).text
    assert 'broker_grants{health="healthy",provider="sandbox"} 1.0' in text
    assert 'broker_grants{health="expired",provider="keeps"} 1.0' in text
    soonest = re.search(r"^broker_soonest_expiry_seconds (\S+)", text, re.MULTILINE)
    assert soonest is not None and 3500 < float(soonest[1]) <= 3600
    assert re.search(r"^broker_database_connections_in_use \d", text, re.MULTILINE)
    assert 'broker_cache_reads_total{cache="keys",outcome="' in text
    facts = (await broker.http.get("/health-check")).json()["checks"]["refresh"]["facts"]
    assert facts.keys() == {"due", "failing", "reconnect_required", "soonest_expiry_at"}
    told = datetime.fromisoformat(facts["soonest_expiry_at"]) - broker.services.clock.now()
    assert timedelta(seconds=3440) < told <= timedelta(seconds=3600)  # to the minute
    assert facts["soonest_expiry_at"].endswith(":00Z")


async def test_a_census_is_shared_for_a_while(broker: Broker) -> None:
    first = await broker.services.counting.census(within_seconds=10)
    assert await broker.services.counting.census(within_seconds=0) is first
