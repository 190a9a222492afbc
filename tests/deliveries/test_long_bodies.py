"""Long batches hold up nobody, and are read only for those who may ask."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from app.api import json_text, verbatim
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
    assert len(unread.members["records"].texts) == 40_000


async def test_a_body_is_read_only_for_who_may_ask(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    members = json_text.members

    def noted(raw: bytes, **more: frozenset[str]) -> object:
        read.append(len(raw))
        return members(raw, **more)

    monkeypatch.setattr(json_text, "members", noted)
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


SIXTEEN = 16 * 1024 * 1024 - 1024
HEAD = json.dumps({**BATCH, "records_per_request": 100}).encode()[:-1] + b", "


def _of_a_single_kind(name: bytes, item: bytes, close: bytes) -> bytes:
    return HEAD + name + (item * (SIXTEEN // len(item))).removesuffix(b",") + close


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (_of_a_single_kind(b'"records": [', b"1,", b"]}"), "body.records"),
        (_of_a_single_kind(b'"records": [[', b"[],", b"]]}"), "body.records.0"),
        (_of_a_single_kind(b'"records": [1], "headers": {', b'"a": "b",', b"}}"), "body"),
        (_of_a_single_kind(b'"records": [1], ', b'"a": "b",', b"}"), "body"),
        (HEAD + b'"records": [1], ' + b'"' + b"x" * SIXTEEN + b'": 1}', "body"),
        (b"[" + b"[]," * (SIXTEEN // 3) + b"[]]", "body"),
        (HEAD + b'"records": [1], "records": [2]}', "body.records"),
    ],
    ids=["records", "a record", "headers", "members", "a name", "no object", "records twice"],
)
async def test_what_is_too_much_is_refused_before_all_of_it_is_made(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, body: bytes, field: str
) -> None:
    decoder = CountedDecoder()
    monkeypatch.setattr(json_text, "_DECODER", decoder)
    answer = await _post(broker, body)
    assert (answer.status_code, [each["field"] for each in answer.json()["errors"]]) == (422, [field])
    assert decoder.values < 101_000 and decoder.longest <= 1024 * 1024 + 1


class CountedDecoder(json.JSONDecoder):
    """Knows how much it had to make."""

    values = 0
    longest = 0

    def raw_decode(self, s: str, idx: int = 0) -> tuple[object, int]:
        self.values += 1
        self.longest = max(self.longest, len(s) - idx)
        return super().raw_decode(s, idx)


async def test_a_batch_may_have_a_hundred_thousand_records_and_one_as_long_as_a_request(
    broker: Broker,
) -> None:
    broker.services.drain.begin()
    for records in (b"1," * 99_999 + b"1", b'"' + b"x" * (1024 * 1024 - 2) + b'"'):
        answer = await _post(broker, HEAD + b'"records": [' + records + b"]}")
        assert (answer.status_code, answer.json()["total"]) == (202, records.count(b",") + 1)


@pytest.mark.parametrize("length", [4094, 4095, 4096, 4097, 65_535, 65_536, 65_537])
def test_a_value_is_whole_wherever_it_ends(length: int) -> None:
    for record in ("[1" + " " * (length - 3) + "]", '"' + "é" * (length - 2) + '"'):
        for behind in ("", " "):
            raw = f'{{"records": [7 ,{record}{behind}, 8]}}'.encode()
            read = json_text.members(raw, verbatim=frozenset(), lists=frozenset({"records"}))
            assert read["records"].texts == ("7", record, "8")
    number = "1." + "5" * (length - 2)
    read = json_text.members(f"[{number}]".encode(), verbatim=frozenset(), lists=frozenset())
    assert read == [float(number)]


async def _post(broker: Broker, body: bytes) -> httpx.Response:
    headers = {"Content-Type": "application/json"}
    return await broker.http.post("/deliveries/batches", content=body, headers=headers)
