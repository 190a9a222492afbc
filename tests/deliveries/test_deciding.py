"""Batches that are too large to be decided about at once: in parts, of which any may be the last for now."""

from __future__ import annotations

from collections import Counter
from typing import Any
from uuid import UUID

import pytest

from app.deliveries import deciding
from tests.broker import Broker
from tests.deliveries import rows
from tests.deliveries.conftest import Put
from tests.deliveries.upstream import RecordsApi

_INTERRUPTED = "UPDATE delivery_batches SET cancelled_at = now()"  # as cancelling begins; what waits is left


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deciding, "PART", 3)


@pytest.fixture
async def batch_id(put_batch: Put) -> UUID:
    return await put_batch([{"n": n} for n in range(20)], per_request=2, concurrency=2)


async def _decide(broker: Broker, path: str) -> dict[str, Any]:
    answer = await broker.http.post(f"/deliveries/{path}")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def _statuses(url: str, batch_id: UUID) -> Counter[str]:
    return Counter(each["status"] for each in await rows.rows_of(url, batch_id))


async def _events(broker: Broker, action: str) -> list[int]:
    answer = await broker.http.get("/audit", params={"action": action})
    return [each["details"]["records"] for each in answer.json()["items"]]


async def test_a_batch_is_cancelled_in_parts(broker: Broker, api: RecordsApi, batch_id: UUID) -> None:
    told = await _decide(broker, f"batches/{batch_id}/cancel")
    assert (told["records"], told["batch"]["status"], told["batch"]["cancelled"]) == (20, "cancelled", 20)
    assert (await _decide(broker, f"batches/{batch_id}/cancel"))["records"] == 0
    assert await _events(broker, "delivery_batch.cancelled") == [20]
    await broker.services.sender.send_due()
    assert api.requests == []


async def test_the_dead_of_a_batch_are_replayed_in_parts(
    broker: Broker, api: RecordsApi, batch_id: UUID, database_url: str
) -> None:
    dead = "UPDATE deliveries SET status = 'dead', next_attempt_at = NULL, ended_at = now()"
    await rows.run(database_url, dead)
    assert (await _decide(broker, f"batches/{batch_id}/replay"))["records"] == 20
    await broker.services.sender.send_due()
    assert await _statuses(database_url, batch_id) == {"delivered": 10}
    assert sum(await _events(broker, "delivery_batch.replayed")) == 20


async def test_a_batch_whose_cancelling_was_interrupted_sends_nothing(
    broker: Broker, api: RecordsApi, batch_id: UUID, database_url: str
) -> None:
    await rows.run(database_url, _INTERRUPTED)
    await broker.services.sender.send_due()
    assert api.requests == []
    assert await _statuses(database_url, batch_id) == {"queued": 10}
    assert (await _decide(broker, f"batches/{batch_id}/cancel"))["records"] == 20
    assert await _statuses(database_url, batch_id) == {"cancelled": 10}


async def test_what_an_interrupted_cancelling_left_is_ended_by_itself(
    broker: Broker, api: RecordsApi, batch_id: UUID, database_url: str
) -> None:
    await rows.run(database_url, _INTERRUPTED)
    await broker.run("sweep_deliveries")
    assert await _statuses(database_url, batch_id) == {"cancelled": 10}


async def test_replaying_one_of_a_cancelled_batch_sends_none_of_what_was_left(
    broker: Broker, api: RecordsApi, batch_id: UUID, database_url: str
) -> None:
    [one, *_] = await rows.rows_of(database_url, batch_id)
    ended = (
        "UPDATE deliveries SET status = 'cancelled', next_attempt_at = NULL, ended_at = now() WHERE id = $1"
    )
    await rows.run(database_url, ended, one["id"])
    await rows.run(database_url, _INTERRUPTED)
    await _decide(broker, f"{one['id']}/replay")
    await broker.services.sender.send_due()
    assert await _statuses(database_url, batch_id) == {"delivered": 1, "cancelled": 9}
    assert len(api.requests) == 1
