"""Long batches hold up nobody, and are read only for those who may ask."""

from __future__ import annotations

import asyncio
import json

import pytest

from app.api import verbatim
from tests.broker import Broker
from tests.deliveries.test_accepting import BATCH


def body_of(records: int) -> bytes:
    wanted = {**BATCH, "records": [{"n": number, "text": "x" * 300} for number in range(records)]}
    return json.dumps({**wanted, "records_per_request": 100}).encode()


async def test_nobody_waits_for_a_long_batch_to_be_read(broker: Broker) -> None:
    broker.services.drain.begin()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    unread = verbatim.Unread(body_of(40_000))
    waiting = asyncio.create_task(others())
    await unread.read()
    waiting.cancel()
    assert turns > 10
    assert len(unread.members["records"]) == 40_000


async def test_a_body_is_read_only_for_who_may_ask(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    members = verbatim.members

    def noted(raw: bytes, **more: frozenset[str]) -> object:
        read.append(len(raw))
        return members(raw, **more)

    monkeypatch.setattr(verbatim, "members", noted)
    body, headers = body_of(1000), {"Content-Type": "application/json"}
    answer = await broker.http.post(
        "/deliveries/batches", content=body, headers={**headers, "Authorization": "no"}
    )
    assert (answer.status_code, read) == (401, [])
    answer = await broker.http.post("/deliveries/batches", content=body, headers=headers)
    assert (answer.status_code, read) == (202, [len(body)])


async def test_a_batch_may_have_sixteen_mebibytes_and_nothing_else(broker: Broker) -> None:
    broker.services.drain.begin()
    answer = await broker.http.post(
        "/deliveries/batches", content=body_of(40_000), headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["total"]) == (202, 40_000)
    for path, size in (("/deliveries/batches", 16 * 1024 * 1024 + 1), ("/deliveries", 1024 * 1024 + 1)):
        answer = await broker.http.post(path, content=b" " * size)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
