"""What ended long ago is forgotten: a batch as a whole, or not at all."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from app.clock import SystemClock
from app.db import Database
from app.deliveries import sweeping
from app.deliveries.sweeping import Sweeper
from app.drain import Drain
from tests.broker import Broker
from tests.deliveries import rows
from tests.deliveries.conftest import Put
from tests.postgres import database

_END = (
    "UPDATE deliveries SET status = $2, next_attempt_at = NULL, ended_at = now() - make_interval(days => $3)"
    " WHERE batch_id = $1 AND first_record BETWEEN $4 AND $5"
)


async def _ended(
    url: str, batch_id: UUID, status: str, *, days: int, first: int = 0, last: int = 9999
) -> None:
    await rows.run(url, _END, batch_id, status, days, first, last)
    await rows.run(url, "UPDATE delivery_batches SET created_at = now() - interval '60 days'")


async def _left(url: str) -> tuple[int, ...]:
    async with database(url) as connection:
        query = "SELECT (SELECT count(*) FROM delivery_batches), (SELECT count(*) FROM deliveries)"
        [found] = await connection.fetch(query)
        return tuple(found)


async def _told(broker: Broker, batch_id: UUID) -> dict[str, Any]:
    answer = await broker.http.get(f"/deliveries/batches/{batch_id}")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    counts = ("queued", "sending", "retrying", "delivered", "dead", "cancelled")
    assert sum(told[name] for name in counts) == told["total"]
    return told


async def test_sweepers_that_work_at_once_leave_nothing_of_a_batch(
    database_url: str, put_batch: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "_AT_ONCE", 7)
    for _ in range(3):
        batch_id = await put_batch([{"n": n} for n in range(100)], per_request=1)
        await _ended(database_url, batch_id, "delivered", days=31)
    db, clock = Database(database_url, pool_size=4), SystemClock()
    sweepers = [
        Sweeper(db, Drain(clock, within=timedelta(seconds=1)), kept_for=timedelta(days=30)) for _ in range(3)
    ]
    await asyncio.gather(*(each.sweep() for each in sweepers))
    await db.close()
    assert await _left(database_url) == (0, 0)


async def test_a_batch_with_a_dead_record_keeps_all_that_it_counts(
    broker: Broker, put_batch: Put, database_url: str
) -> None:
    batch_id = await put_batch([{"n": n} for n in range(10)], per_request=1)
    await _ended(database_url, batch_id, "delivered", days=31, last=8)
    await _ended(database_url, batch_id, "dead", days=31, first=9)
    await broker.run("sweep_deliveries")
    told = await _told(broker, batch_id)
    assert (told["status"], told["delivered"], told["dead"]) == ("partial", 9, 1)
    await _ended(database_url, batch_id, "cancelled", days=31, first=9)
    await broker.run("sweep_deliveries")
    assert await _left(database_url) == (0, 0)


async def test_a_batch_is_kept_until_the_last_of_it_ended_long_ago(
    broker: Broker, put_batch: Put, database_url: str
) -> None:
    batch_id = await put_batch([{"n": n} for n in range(10)], per_request=1)
    await _ended(database_url, batch_id, "delivered", days=31, last=8)
    await broker.run("sweep_deliveries")  # the last one waits
    await _ended(database_url, batch_id, "delivered", days=29, first=9)
    await broker.run("sweep_deliveries")
    assert (await _told(broker, batch_id))["delivered"] == 10
    await _ended(database_url, batch_id, "delivered", days=31, first=9)
    await broker.run("sweep_deliveries")
    assert await _left(database_url) == (0, 0)


async def test_a_batch_that_is_being_decided_about_is_not_forgotten(
    broker: Broker, put_batch: Put, database_url: str
) -> None:
    batch_id = await put_batch([{"n": 1}], per_request=1)
    await _ended(database_url, batch_id, "cancelled", days=31)
    async with database(database_url) as deciding, deciding.transaction():
        await deciding.execute("SELECT FROM delivery_batches WHERE id = $1 FOR UPDATE", batch_id)
        await broker.run("sweep_deliveries")
        await deciding.execute("UPDATE deliveries SET status = 'queued', ended_at = NULL")
    await broker.run("sweep_deliveries")
    assert (await _told(broker, batch_id))["queued"] == 1


async def test_a_batch_that_is_forgotten_is_there_for_nobody(
    broker: Broker, put_batch: Put, database_url: str
) -> None:
    batch_id = await put_batch([{"n": n} for n in range(3)], per_request=1)
    await _ended(database_url, batch_id, "cancelled", days=31)
    [one, *_] = await rows.rows_of(database_url, batch_id)
    await rows.run(database_url, "UPDATE delivery_batches SET forgotten_at = now()")
    for path in (f"batches/{batch_id}/replay", f"batches/{batch_id}/cancel", f"{one['id']}/replay"):
        assert (await broker.http.post(f"/deliveries/{path}")).status_code == 404
    assert (await broker.http.get(f"/deliveries/batches/{batch_id}")).status_code == 404
    assert (await broker.http.get("/deliveries/batches")).json()["items"] == []
    await broker.run("sweep_deliveries")
    assert await _left(database_url) == (0, 0)
