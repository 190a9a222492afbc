"""Batches watched as they go on, over sockets; and what a scheduler's call does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.deliveries import progress, reading_store
from app.deliveries.cron import CALLS_A_MINUTE
from app.errors import ConfigurationError, Overloaded
from app.metrics import SECURITY_EVENTS
from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, Broker, Replica, Replicas, bring, settings_for
from tests.deliveries import rows
from tests.deliveries.test_accepting import BATCH, ask
from tests.deliveries.upstream import RecordsApi
from tests.plans import statements

SECRET = "7d1f0c9be2a84653f0b7d1c29ea85634"
CRON = "/cron/retry-failed"


def client_of(replica: Replica) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=replica.url, headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=30, trust_env=False
    )


async def events_of(answer: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    """Each event's name and data."""
    name = ""
    async for line in answer.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


async def test_a_batch_is_watched_until_it_ends(
    replicas: Replicas, sandbox: Sandbox, api: RecordsApi
) -> None:
    api.delay = 0.3
    replica = replicas.start()
    async with client_of(replica) as http:
        await http.put("/grants/records/ada", json=bring(sandbox.grant("ada"), expires_in=300))
        wanted = {**BATCH, "concurrency": 1, "records": [{"n": number} for number in range(16)]}
        batch = (await http.post("/deliveries/batches", json=wanted)).json()
        async with http.stream("GET", f"/deliveries/batches/{batch['id']}/events") as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == (
                "no-store",
                "no",
            )
            seen = [event async for event in events_of(answer)]
    assert [name for name, _ in seen] == ["progress"] * (len(seen) - 1) + ["done"]
    assert len(seen) > 3 and all(each["total"] == 16 for _, each in seen)
    delivered = [each["delivered"] for _, each in seen]
    assert delivered == sorted(delivered) and delivered[-1] == 16
    assert seen[-1][1]["status"] == "delivered"


async def test_who_stops_listening_is_forgotten_and_who_leaves_says_so(
    replicas: Replicas, sandbox: Sandbox, api: RecordsApi
) -> None:
    api.gate.clear()
    replica = replicas.start(drain_seconds="27", lease_seconds="26")
    async with client_of(replica) as http:
        await http.put("/grants/records/ada", json=bring(sandbox.grant("ada"), expires_in=300))
        batch = (await http.post("/deliveries/batches", json={**BATCH, "records": [{"n": 1}]})).json()
        path = f"/deliveries/batches/{batch['id']}/events"
        async with http.stream("GET", path) as answer:  # and goes
            assert (await anext(events_of(answer)))[0] == "progress"
        async with http.stream("GET", path) as answer:
            lines = answer.aiter_lines()
            assert (await anext(lines)).startswith("retry: ")
            replica.terminate()
            await asyncio.sleep(0.2)
            api.gate.set()
            async with asyncio.timeout(10):
                rest = [line async for line in lines]
        assert "request.crashed" not in replica.log.read_text()
        assert not any("done" in line for line in rest) or any("delivered" in line for line in rest)
    assert replica.wait() == 0


async def test_however_many_listen_a_batch_is_looked_at_once(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LOOK_SECONDS", 0.05)
    made = (await ask(broker, "/deliveries/batches", records=[1], concurrency=1)).json()["id"]
    batch = await broker.services.delivery_reader.batch(made)
    watched = broker.services.progress

    async def listen() -> int:
        seen = 0
        async for _ in watched.of(batch):
            seen += 1
        return seen

    with statements() as asked:
        listening = [asyncio.create_task(listen()) for _ in range(20)]
        await asyncio.sleep(0.5)
        looked = sum("FROM delivery_batches" in statement for statement, _ in asked)
    assert 1 <= looked <= 12
    for each in listening:
        each.cancel()
    await asyncio.gather(*listening, return_exceptions=True)
    assert watched._watches == {} and watched._listeners == 0


async def test_only_so_many_may_listen(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "MOST_LISTENERS", 0)
    made = (await ask(broker, "/deliveries/batches", records=[1])).json()["id"]
    answer = await broker.http.get(f"/deliveries/batches/{made}/events")
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    assert answer.headers["retry-after"]


async def test_a_burst_of_listeners_stays_within_the_bound(
    broker: Broker, api: RecordsApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "MOST_LISTENERS", 3)
    api.gate.clear()
    made = (await ask(broker, "/deliveries/batches", records=[1])).json()["id"]
    batch = await broker.services.delivery_reader.batch(made)
    streams = [broker.services.progress.of(batch) for _ in range(10)]
    answers = await asyncio.gather(*(anext(each) for each in streams), return_exceptions=True)
    assert [isinstance(each, Overloaded) for each in answers] == [False] * 3 + [True] * 7
    full = await broker.http.get(f"/deliveries/batches/{made}/events")
    assert (full.status_code, full.json()["code"]) == (503, "overloaded")
    for each in streams:
        await each.aclose()
    assert broker.services.progress._listeners == 0
    api.gate.set()


async def test_who_cannot_be_told_any_more_is_let_go_to_ask_anew(
    broker: Broker, api: RecordsApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "_LOOK_SECONDS", 0.05)
    api.gate.clear()
    made = (await ask(broker, "/deliveries/batches", records=[1])).json()["id"]

    async def broken(*_: object) -> None:
        raise RuntimeError("not looked at")

    watched = broker.services.progress
    batch = await broker.services.delivery_reader.batch(made)
    with monkeypatch.context() as patched:
        patched.setattr(reading_store, "find_batch", broken)
        async with asyncio.timeout(5):
            assert [each async for each in watched.of(batch)] == [batch]
    assert (watched._watches, watched._listeners) == ({}, 0)
    assert "progress.crashed" in caplog.text
    api.gate.set()


@pytest.fixture
async def scheduled(
    database_url: str, providers_dir: Path, tmp_path: Path, sandbox: Sandbox
) -> AsyncIterator[Broker]:
    """A broker that has a cron secret, and sends nothing of itself."""
    settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var", cron_secret=SECRET)
    async with Broker.running(settings) as running:
        running.services.timetable.stop()
        running.http.headers.pop("Authorization")
        running.http.headers["X-API-Key"] = ADMIN_KEY
        await running.put("records/ada", bring(sandbox.grant("ada"), expires_in=300))
        yield running


@pytest.mark.parametrize("header", [("Authorization", f"Bearer {SECRET}"), ("X-Cron-Secret", SECRET)])
async def test_a_scheduler_has_sent_what_is_due(
    scheduled: Broker, api: RecordsApi, database_url: str, header: tuple[str, str]
) -> None:
    vault = scheduled.services.vault
    for body in ('[{"n": 1}]', '[{"n": 2, "bad": true}]'):
        await rows.put_one(database_url, vault, body=body)
    await rows.put_one(database_url, vault, due_in=timedelta(days=1))
    answer = await scheduled.http.post(CRON, headers=dict([header]))
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["claimed"], told["delivered"], told["dead"], told["released_stuck"]) == (2, 1, 1, 0)
    assert api.applied == {1: 1}


async def test_a_wrong_secret_is_refused_and_watched(scheduled: Broker) -> None:
    before = SECURITY_EVENTS.labels("cron_refused")._value.get()
    for header in ({}, {"X-Cron-Secret": "no"}, {"Authorization": "Bearer " + SECRET[:-1] + "5"}):
        answer = await scheduled.http.post(CRON, headers=header)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert SECURITY_EVENTS.labels("cron_refused")._value.get() == before + 3
    both = {"X-Cron-Secret": SECRET, "Authorization": "Bearer no"}
    assert (await scheduled.http.post(CRON, headers=both)).status_code == 400


async def test_a_scheduler_may_call_five_times_a_minute(scheduled: Broker) -> None:
    for _ in range(CALLS_A_MINUTE):
        assert (await scheduled.http.post(CRON, headers={"X-Cron-Secret": SECRET})).status_code == 200
    for secret in (SECRET, "no"):
        answer = await scheduled.http.post(CRON, headers={"X-Cron-Secret": secret})
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert 0 < int(answer.headers["retry-after"]) <= 60


async def test_without_a_secret_there_is_nothing_for_schedulers(broker: Broker) -> None:
    answer = await broker.http.post(CRON)
    nowhere = await broker.http.post("/cron/none")
    assert (answer.status_code, answer.json()["detail"]) == (404, nowhere.json()["detail"])


@pytest.mark.parametrize("secret", ["short", "a" * 40, "abcdefghijklmnopqrstuvwxyz0123456789"[:30] + "é" * 4])
def test_a_weak_secret_starts_nothing(tmp_path: Path, secret: str) -> None:
    with pytest.raises(ConfigurationError, match="BROKER_CRON_SECRET") as refused:
        settings_for("postgresql://x/y", tmp_path, data_dir=tmp_path, cron_secret=secret)
    assert secret not in str(refused.value) and "openssl rand" in str(refused.value)
