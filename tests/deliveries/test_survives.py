"""A batch of ten thousand records against everything at once: some are bad for good, some requests fail for a while, the token
ends in the middle, and so does a replica. Processes of their own, and a real upstream over sockets."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, Replica, Replicas, bring
from tests.deliveries import rows
from tests.deliveries.upstream import RecordsApi
from tests.postgres import database

RECORDS = 10_000
BAD = {n for n in range(RECORDS) if n % 100 == 37}
KINDS = ("503", "reset", "429")
_SECONDS = 110.0
SETTINGS: dict[str, Any] = {
    "clients__records__client_id": "sandbox",
    "clients__records__client_secret": "sandbox-secret",
    "delivery_stuck_seconds": "5",
    "breaker_cooldown_seconds": "0.5",
    "breaker_cooldown_max_seconds": "1",
}


def fails_for_a_while(key: str, number: int) -> str | None:
    """A tenth of all deliveries, once or twice; one whose connection is broken after it was applied once."""
    drawn = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    if drawn % 10 != 0:
        return None
    kind = KINDS[drawn // 10 % 3]
    times = 1 if kind == "reset" else 1 + drawn // 30 % 2
    return kind if number < times else None


@pytest.fixture
def three(replicas: Replicas) -> list[Replica]:
    return [replicas.start(**SETTINGS) for _ in range(3)]


@pytest.mark.timeout(300)
async def test_every_record_is_delivered_once_or_dead_for_a_reason(
    three: list[Replica], api: RecordsApi, sandbox: Sandbox, database_url: str, tmp_path: Path
) -> None:
    api.fault_of, api.delay = fails_for_a_while, 0.005
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with httpx.AsyncClient(headers=headers, base_url=three[0].url) as http:
        brought = bring(sandbox.grant("ada"), expires_in=300)
        (await http.put("/grants/records/ada", json=brought)).raise_for_status()
        told = [{"n": n, "bad": True} if n in BAD else {"n": n} for n in range(RECORDS)]
        wanted = {
            "provider": "records",
            "user_id": "ada",
            "method": "POST",
            "path": "/records",
            "records": told,
        }
        sizes = {"records_per_request": 10, "concurrency": 16}
        accepted = await http.post("/deliveries/batches", json={**wanted, **sizes})
        assert accepted.status_code == 202, accepted.text
        batch_id = UUID(accepted.json()["id"])

    await _until_applied(api, RECORDS // 4)
    ended_token = brought["access_token"]
    api.takes = lambda token: token != ended_token and sandbox.accepts(token)
    await _until_applied(api, RECORDS // 2)
    await _killed_while_it_sends(three[2], database_url)
    await _until_ended(database_url, batch_id)

    async with httpx.AsyncClient(headers=headers, base_url=three[0].url) as http:
        counts = (await http.get(f"/deliveries/batches/{batch_id}")).json()
    assert (counts["delivered"], counts["dead"], counts["total"]) == (RECORDS - len(BAD), len(BAD), RECORDS)
    found = await rows.rows_of(database_url, batch_id)
    leaves = [each for each in found if each["records"]]
    assert sorted(_records_of(leaves)) == list(range(RECORDS))
    dead = [each for each in leaves if each["status"] == "dead"]
    assert {each["status"] for each in leaves} == {"delivered", "dead"}
    assert sorted(_records_of(dead)) == sorted(BAD)
    assert {(each["records"], each["category"], each["last_status"]) for each in dead} == {
        (1, "validation", 422)
    }
    assert api.applied == {n: 1 for n in range(RECORDS) if n not in BAD}
    # And all of it did happen.
    assert min(api.statuses[kind] for kind in ("401", "422", *KINDS)) > 0
    async with database(database_url) as connection:
        codes = Counter(each["code"] for each in await connection.fetch("SELECT code FROM delivery_attempts"))
        assert await connection.fetchval("SELECT sending FROM delivery_batches") == 0
    assert codes["claim_lost"] > 0
    assert sandbox.report()["refreshes"] == 1
    assert api.most_at_once["/v1/records"] <= 16


def _records_of(found: list[dict[str, Any]]) -> list[int]:
    return [n for each in found for n in range(each["first_record"], each["first_record"] + each["records"])]


async def _killed_while_it_sends(replica: Replica, url: str) -> None:
    """Stopped, looked at, and killed if it holds anything just then."""
    query = "SELECT count(*) FROM deliveries WHERE status = 'sending' AND replica LIKE $1"
    process = replica.process
    async with asyncio.timeout(_SECONDS), database(url) as connection:
        while True:
            process.send_signal(signal.SIGSTOP)
            if await connection.fetchval(query, f"%-{process.pid}-%"):
                break
            process.send_signal(signal.SIGCONT)
            await asyncio.sleep(0.01)
    process.kill()


async def _until_applied(api: RecordsApi, count: int) -> None:
    async with asyncio.timeout(_SECONDS):
        while len(api.applied) < count:
            await asyncio.sleep(0.01)


async def _until_ended(url: str, batch_id: UUID) -> None:
    query = "SELECT count(*) FROM deliveries WHERE batch_id = $1 AND ended_at IS NULL"
    async with asyncio.timeout(_SECONDS), database(url) as connection:
        while await connection.fetchval(query, batch_id):
            await asyncio.sleep(0.2)
