"""Requests that come again byte for byte: answered unparsed, and as they would be if they came for the first time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from app.api.lane import BrokerApp, Lane
from app.consumers import authenticate
from app.inbound import Limits
from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, Broker, bring
from tests.sockets import Connect, Connection, served

HEAD = "Host: broker\r\nAuthorization: Bearer {}\r\n\r\n"
ADA = ("GET /tokens/sandbox/ada HTTP/1.1\r\n" + HEAD.format(ADMIN_KEY)).encode()
LIVE = b"GET /health-check/live HTTP/1.1\r\nHost: broker\r\n"


class Unparsed(Counter[bool]):
    """How often a request was answered unparsed, and how often that was tried in vain."""


@pytest.fixture(autouse=True)
def _keys_are_known_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authenticate, "_CACHE_SECONDS", 60.0)


@pytest.fixture
def unparsed(monkeypatch: pytest.MonkeyPatch) -> Unparsed:
    counted, again = Unparsed(), Lane.again

    def noted(self: Lane, *arguments: Any) -> bytes | None:
        answer = again(self, *arguments)
        counted[answer is not None] += 1
        return answer

    monkeypatch.setattr(Lane, "again", noted)
    return counted


@pytest.fixture
async def connect(broker: Broker, sandbox: Sandbox, unparsed: Unparsed) -> AsyncIterator[Connect]:
    """To a server whose lane knows Ada's token, and an administrator's request for it by heart."""
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    async with served(broker, Limits()) as connect:
        async with asyncio.timeout(10):
            first = await connect()
            while not unparsed[True]:
                await first.send(ADA)
                assert (await first.answer())[0] == 200
                await asyncio.sleep(0.01)
        unparsed.clear()
        yield connect


async def asked(connection: Connection, request: bytes) -> tuple[int, dict[str, str], bytes]:
    await connection.send(request)
    return await connection.answer()


async def test_it_is_answered_as_a_parsed_one_is(connect: Connect, unparsed: Unparsed) -> None:
    connection = await connect()
    again = await asked(connection, ADA)
    parsed = await asked(connection, ADA.replace(b"Host: broker", b"Host:  broker"))
    assert unparsed[True] == 1
    assert again[0] == parsed[0] == 200
    assert again[2].partition(b"expires_in")[0] == parsed[2].partition(b"expires_in")[0]
    assert again[1].pop("x-request-id") != parsed[1].pop("x-request-id")
    assert list(again[1]) == list(parsed[1])


async def test_it_is_so_on_a_connection_that_is_used_for_other_things_as_well(
    connect: Connect, unparsed: Unparsed
) -> None:
    connection = await connect()
    for _ in range(3):
        assert (await asked(connection, ADA))[0] == 200
        assert (await asked(connection, LIVE + b"\r\n"))[0] == 204
        assert (await asked(connection, ADA))[0] == 200
        assert (await asked(connection, ADA))[0] == 200
    # Behind another one it is parsed once: only then is it certain where the next request begins.
    assert unparsed[True] == 6


async def own_key(broker: Broker, **rights: Any) -> tuple[str, bytes]:
    """The path of a new consumer's key, and its request for Ada's token."""
    body = {"name": "crm", "scopes": ["tokens:read"], **rights}
    consumer = (await broker.http.post("/consumers", json=body)).json()["id"]
    key = (await broker.http.post(f"/consumers/{consumer}/keys")).json()
    return f"/consumers/{consumer}/keys/{key['id']}", ADA.replace(ADMIN_KEY.encode(), key["key"].encode())


async def learned(connection: Connection, request: bytes, unparsed: Unparsed) -> bytes:
    """The last answer, once it is answered unparsed."""
    unparsed.clear()
    async with asyncio.timeout(10):
        while not unparsed[True]:
            status, _, body = await asked(connection, request)
            assert status == 200
    return body


async def test_a_changed_grant_and_a_revoked_key_are_noticed(
    broker: Broker, connect: Connect, sandbox: Sandbox, unparsed: Unparsed
) -> None:
    path, mine = await own_key(broker)
    connection = await connect()
    before = await learned(connection, mine, unparsed)
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    status, _, body = await asked(connection, mine)
    assert status == 200 and body.split(b",")[0] != before.split(b",")[0]
    await learned(connection, mine, unparsed)
    await broker.http.delete(path)
    assert (await asked(connection, mine))[0] == 401


async def test_each_counts_against_the_rate(broker: Broker, connect: Connect, unparsed: Unparsed) -> None:
    _, mine = await own_key(broker, rate={"limit": 60, "per_seconds": 3600})
    connection = await connect()
    statuses = [(await asked(connection, mine))[0] for _ in range(70)]
    assert unparsed[True] > 10
    assert statuses == [200] * 60 + [429] * 10


@pytest.mark.parametrize("cut", [1, 4, 30, -2, -1])
async def test_in_pieces_it_is_put_together(connect: Connect, cut: int) -> None:
    connection = await connect()
    await asked(connection, ADA)
    await connection.send(ADA[:cut], ADA[cut:], pause=0.05)
    assert (await connection.answer())[0] == 200
    assert (await asked(connection, ADA))[0] == 200


async def test_several_in_one_piece_are_all_answered(connect: Connect) -> None:
    connection = await connect()
    for number in (1, 2, 3):
        await connection.send(ADA * number)
        for _ in range(number):
            assert (await connection.answer())[0] == 200


async def test_the_same_bytes_within_another_request_are_no_request(
    connect: Connect, unparsed: Unparsed
) -> None:
    """In a header, as a body, and behind half of a line's end, whatever the parser makes of that."""
    connection = await connect()
    await connection.send(LIVE.replace(b"Host", b"Else") + b"X: ", ADA, pause=0.05)
    assert (await connection.answer())[0] == 204
    length = f"Content-Length: {len(ADA)}\r\n\r\n".encode()
    await connection.send(b"PUT /providers HTTP/1.1\r\nHost: broker\r\n" + length, ADA, pause=0.05)
    assert (await connection.answer())[0] in (401, 405)
    await connection.send(ADA + b"\r", ADA, pause=0.05)
    for _ in range(2):
        assert (await connection.answer())[0] == 200
    assert not unparsed[True]


async def test_a_request_behind_a_body_in_one_piece_is_not_learned_with_it(
    connect: Connect, unparsed: Unparsed
) -> None:
    """By itself the piece is another request, which has a body."""
    body = b"GET /a HTTP/1.1\r\nContent-Length: 20\r\nX: "
    length = f"Content-Length: {len(body)}\r\n\r\n".encode()
    for _ in range(3):
        connection = await connect()
        await connection.send(b"PUT /nowhere HTTP/1.1\r\nHost: broker\r\n" + length)
        assert (await connection.answer())[0] in (401, 404)
        await connection.send(body + ADA)
        assert (await connection.answer())[0] == 200
    unparsed.clear()
    connection = await connect()
    await connection.send(body + ADA, b"GET /health-check ab", pause=0.05)
    assert (await connection.answer())[0] in (400, 401, 404)
    assert not unparsed[True]


async def test_requests_none_of_which_comes_twice_are_not_learned(
    broker: Broker, connect: Connect, unparsed: Unparsed
) -> None:
    connection, lane = await connect(), cast(BrokerApp, broker.app).lane
    assert lane is not None
    known = len(lane._said)
    for number in range(20):
        own = f"HTTP/1.1\r\nX-Request-ID: mine-{number}\r\n".encode()
        _, fields, _ = await asked(connection, ADA.replace(b"HTTP/1.1\r\n", own))
        assert fields["x-request-id"] == f"mine-{number}"
    assert not unparsed[True]
    assert len(lane._said) == known


async def test_the_connection_ends_some_time_after_the_last_answer_and_not_before(
    connect: Connect,
) -> None:
    connection, loop = await connect(), asyncio.get_running_loop()
    began = loop.time()
    while loop.time() - began < 6:  # longer than an idle one is kept
        assert (await asked(connection, ADA))[0] == 200
        await asyncio.sleep(0.5)
    answered = loop.time()
    assert await connection.all() == b""
    assert 3 < loop.time() - answered < 7
