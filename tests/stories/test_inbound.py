"""Clients that are slow, endless or ambiguous, against the server as it is served, on real sockets."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app import inbound, untaken
from app.api import middleware
from app.inbound import BoundedProtocol, Limits
from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, Broker, Replicas, bring
from tests.sockets import Connect, Connection, served

KEY = f"Authorization: Bearer {ADMIN_KEY}\r\n"
PUT = "PUT /grants/sandbox/ada HTTP/1.1\r\nHost: broker\r\nContent-Type: application/json\r\n"
LIVE = b"GET /health-check/live HTTP/1.1\r\nHost: broker\r\n\r\n"
SHORT = Limits(head_seconds=1.0, body_seconds=1.5)


@pytest.fixture
async def connect(broker: Broker) -> AsyncIterator[Connect]:
    async with served(broker, SHORT) as connect:
        yield connect


def one_problem(received: bytes) -> dict[str, Any]:
    """The only answer that was received, which is a whole problem, with the headers that all answers have."""
    assert received.count(b"HTTP/1.1 ") == 1, received
    head, _, body = received.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert fields["content-type"] == "application/problem+json"
    assert fields["x-content-type-options"] == "nosniff"
    assert int(fields["content-length"]) == len(body)
    assert fields["connection"] == "close"
    assert "server" not in fields
    problem: dict[str, Any] = json.loads(body)
    assert f" {problem['status']} " in head.decode().split("\r\n")[0]
    assert problem["request_id"] == fields["x-request-id"]
    return problem


async def dripping(connection: Connection, part: str = "x") -> bytes:
    """What comes back while it drips on."""
    drip = asyncio.create_task(connection.drip(part))
    try:
        return await connection.all()
    finally:
        drip.cancel()


@pytest.mark.parametrize(
    "begun", ["GET /health", "GET / HTTP/1.1\r\nHost: b", "GET / HTTP/1.1\r\nHost: b\r\nX: 1\r\n"]
)
async def test_a_head_that_drips_is_cut_off(connect: Connect, begun: str) -> None:
    connection = await connect()
    await connection.send(begun)
    assert one_problem(await dripping(connection))["code"] == "request_timeout"


async def test_a_client_that_says_nothing_is_told_nothing(connect: Connect) -> None:
    assert await (await connect()).all() == b""


async def test_empty_lines_keep_no_connection(connect: Connect) -> None:
    """The parser takes them for nothing at all, before the first request and between two."""
    connection = await connect()
    assert await dripping(connection, "\r\n") == b""
    connection = await connect()
    await connection.send(LIVE)
    assert (await connection.answer())[0] == 204
    assert await dripping(connection, "\r\n") == b""


@pytest.mark.parametrize(
    "framing", ["Content-Length: 1000\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"]
)
async def test_a_body_that_drips_is_cut_off(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, framing: str
) -> None:
    monkeypatch.setattr(middleware, "BODY_SECONDS", 0.3)
    connection = await connect()
    await connection.send(PUT, KEY, framing)
    received = await dripping(connection, "1\r\nx\r\n" if "chunked" in framing else "x")
    assert one_problem(received)["code"] == "request_timeout"


async def test_a_body_that_nobody_waits_for_is_cut_off_too(connect: Connect) -> None:
    """It was answered long ago: there is no such page."""
    connection = await connect()
    await connection.send("PUT /nowhere HTTP/1.1\r\nHost: b\r\nContent-Length: 1000000\r\n\r\n")
    received = await dripping(connection)
    assert received.startswith(b"HTTP/1.1 404") and received.count(b"HTTP/1.1 ") == 1


async def test_a_head_without_an_end_is_refused(connect: Connect) -> None:
    for line in ("x" * 1000, f"X-{'x' * 50}: 1\r\n" * 20, f"X: {'x' * 1000}\r\n"):
        connection = await connect()
        await connection.send("GET /")
        if line.endswith("\n"):
            await connection.send(" HTTP/1.1\r\nHost: b\r\n")
        await connection.send(*[line] * 100)
        assert one_problem(await connection.all())["code"] == "headers_too_large"


async def test_a_slow_answer_is_not_cut_off(connect: Connect, broker: Broker, sandbox: Sandbox) -> None:
    """Limits are for what clients send, not for how long we take."""
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(faults=[{"kind": "delay", "seconds": 1.6}])
    connection = await connect()
    await connection.send("GET /tokens/sandbox/ada HTTP/1.1\r\nHost: b\r\n", KEY, "\r\n")
    assert (await connection.answer())[0] == 200


async def test_a_connection_may_be_used_for_longer_than_one_head_may_take(connect: Connect) -> None:
    connection = await connect()
    for _ in range(12):
        await connection.send(LIVE[:20], LIVE[20:], pause=0.05)
        assert (await connection.answer())[0] == 204


BUNDLE = b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: broker\r\n\r\n"
LARGE = b"GET /large HTTP/1.1\r\nHost: broker\r\n\r\n"
CLOSING = b"GET /large HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n"
TIMER, SYSTEM = "our timer", "the system's"


@pytest.fixture(params=[TIMER, SYSTEM])
def one_of_two(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one of the two that look at what nobody takes."""
    if request.param == TIMER:
        monkeypatch.setattr(untaken, "_USER_TIMEOUT", None)
    elif untaken._USER_TIMEOUT is None:
        pytest.skip("needs TCP_USER_TIMEOUT, which is Linux's")
    else:
        monkeypatch.delattr(BoundedProtocol, "pause_writing")


def with_large_answer(broker: Broker, size: int) -> None:
    """Far more than the system takes for a connection, at `/large`."""
    broker.app.router.add_route("/large", lambda _: Response(bytes(size)))


async def until_there_is_room(connect: Connect) -> None:
    """Until one that was connected is no more."""
    async with asyncio.timeout(20):
        while True:
            late = await connect()
            await late.send("GET /providers HTTP/1.1\r\nHost: b\r\nConnection: close\r\n", KEY, "\r\n")
            if (await late.all()).startswith(b"HTTP/1.1 200"):
                return
            await asyncio.sleep(0.2)


@pytest.mark.usefixtures("one_of_two")
@pytest.mark.parametrize("sent", [BUNDLE * 50, LARGE, CLOSING], ids=["many", "large", "closing"])
async def test_answers_that_nobody_reads_hold_no_connection(broker: Broker, sent: bytes) -> None:
    """Neither while the application waits to write more, nor when all is written, nor while the connection is closing."""
    with_large_answer(broker, 16 << 20)
    async with served(broker, Limits(connections=1, untaken_seconds=1.0), window=4096) as connect:
        await (await connect()).send(sent)
        await until_there_is_room(connect)


async def test_who_reads_slowly_gets_the_whole_answer(broker: Broker) -> None:
    with_large_answer(broker, 5 << 20)
    async with served(broker, Limits(untaken_seconds=1.0), window=32768) as connect:
        connection = await connect()
        await connection.send(LARGE)
        status, _, body = await connection.answer(pause=0.1)
        assert (status, len(body)) == (200, 5 << 20)


SMUGGLED = "GET /health-check/live HTTP/1.1\r\nHost: b\r\n\r\n"
AMBIGUOUS = {
    "length and chunks": "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": "Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
    "a length twice": "Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": "Content-Length: 0, 44\r\n\r\n",
    "a signed length": "Content-Length: +0\r\n\r\n",
    "a negative length": "Content-Length: -1\r\n\r\n",
    "a hexadecimal length": "Content-Length: 0x2c\r\n\r\n",
    "a huge length": f"Content-Length: {'9' * 30}\r\n\r\n",
    "an unknown coding": "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a coding behind chunks": "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunks twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": "Content-Length : 44\r\n\r\n",
    "a folded line": "X: 1\r\n Content-Length: 44\r\n\r\n",
    "a bare line feed": "X: 1\nContent-Length: 44\r\n\r\n",
    "a bare carriage return": "X: 1\rContent-Length: 44\r\n\r\n",
    "a null": "X: a\0b\r\n\r\n",
    "a name that is none": "X(y): 1\r\n\r\n",
    "a chunk that is none": "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a huge chunk": f"Transfer-Encoding: chunked\r\n\r\n{'f' * 20}\r\n",
    "a chunk that is longer": "Transfer-Encoding: chunked\r\n\r\n1\r\nxxx\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("ambiguity", AMBIGUOUS)
async def test_what_can_be_read_in_two_ways_is_not_read_at_all(connect: Connect, ambiguity: str) -> None:
    """A proxy in front may have read it in the other way: nothing behind it is taken for a request."""
    connection = await connect()
    await connection.send(f"POST /tokens/batch HTTP/1.1\r\nHost: b\r\n{AMBIGUOUS[ambiguity]}{SMUGGLED}")
    assert one_problem(await connection.all())["code"] == "invalid_request"


@pytest.mark.parametrize("name", ["Authorization", "X-API-Key", "Host", "Content-Type"])
async def test_a_header_that_counts_stands_once(connect: Connect, name: str) -> None:
    connection = await connect()
    await connection.send(f"GET /providers HTTP/1.1\r\n{name}: a\r\n{name}: b\r\nConnection: close\r\n\r\n")
    problem = one_problem(await connection.all())
    assert problem["code"] == "invalid_request"
    assert name.lower() in problem["detail"].lower()


async def test_what_comes_behind_a_body_is_no_header(connect: Connect) -> None:
    """All of it at once, before anybody has looked at the headers."""
    connection = await connect()
    body = f"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n{KEY}X-Other: 1\r\n\r\n"
    await connection.send(PUT + body)
    assert one_problem(await connection.all())["code"] == "unauthenticated"


async def test_another_protocol_is_not_spoken(connect: Connect) -> None:
    for upgrade in ("websocket", "h2c", "TLS/1.0"):
        connection = await connect()
        head = (
            f"GET /health-check/live HTTP/1.1\r\nHost: b\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n"
        )
        await connection.send(head + SMUGGLED)
        received = await connection.all()
        assert received.startswith(b"HTTP/1.1 204") and received.count(b"HTTP/1.1 ") == 1, upgrade
        assert b"\r\nconnection: close\r\n" in received


async def test_no_tunnel_is_opened(connect: Connect) -> None:
    connection = await connect()
    await connection.send(f"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: b\r\n\r\n{SMUGGLED}")
    received = await connection.all()
    assert received.startswith(b"HTTP/1.1 4") and received.count(b"HTTP/1.1 ") == 1


async def test_garbage_behind_a_request_is_not_answered_in_its_place(
    connect: Connect, broker: Broker, sandbox: Sandbox
) -> None:
    """A proxy would take the refusal for the answer to the request before it, and that one for somebody else's."""
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(faults=[{"kind": "delay", "seconds": 0.3}])
    connection = await connect()
    await connection.send(f"GET /tokens/sandbox/ada HTTP/1.1\r\nHost: b\r\n{KEY}\r\n", "\1garbage\r\n\r\n")
    assert b"HTTP/1.1 400" not in await connection.all()


async def test_who_comes_when_it_is_crowded_is_told_so_and_health_is_answered(broker: Broker) -> None:
    async with served(broker, Limits(connections=3)) as connect:
        inside = [await connect() for _ in range(3)]
        for connection in inside:
            await connection.send(LIVE)
            assert (await connection.answer())[0] == 204
        late = await connect()
        await late.send("GET /providers HTTP/1.1\r\nHost: b\r\n", KEY, "\r\n")
        problem = one_problem(await late.all())
        assert (problem["code"], problem["retry_after"]) == ("overloaded", 1)
        probe = await connect()
        await probe.send(LIVE)
        assert (await probe.answer())[0] == 204
        await inside[0].send("GET /providers HTTP/1.1\r\nHost: b\r\n", KEY, "\r\n")
        assert (await inside[0].answer())[0] == 200


async def test_a_crowd_beyond_that_is_dropped(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound, "_SPARE", 1)
    async with served(broker, Limits(connections=1)) as connect:
        inside, late, dropped = [await connect() for _ in range(3)]
        assert await dropped.all() == b""
        for connection in (inside, late):
            await connection.send(LIVE)
            assert (await connection.answer())[0] == 204


async def test_a_process_of_its_own_does_the_same(replicas: Replicas) -> None:
    """On the event loop that it is served on. A header that names another address is believed of nobody, this machine's
    own processes included."""
    parts = urlsplit(replicas.start().url)
    opened: list[Connection] = []

    async def received(*sent: str) -> bytes:
        opened.append(Connection(*await asyncio.open_connection(parts.hostname, parts.port)))
        await opened[-1].send(*sent)
        return await opened[-1].all()

    assert one_problem(await received("\1garbage\r\n\r\n"))["code"] == "invalid_request"
    assert one_problem(await received("GET /", *["x" * 1000] * 100))["code"] == "headers_too_large"
    statuses = []
    for number in range(21):
        head = f"GET /providers HTTP/1.1\r\nHost: b\r\nConnection: close\r\nX-Forwarded-For: 198.51.100.{number}\r\n"
        statuses.append(one_problem(await received(head, "Authorization: Bearer none\r\n\r\n"))["status"])
    assert statuses == [401] * 20 + [429]
    for connection in opened:
        connection.close()


async def test_what_was_answered_is_gone_without_the_garbage_collector(
    connect: Connect, broker: Broker, sandbox: Sandbox
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    connection = await connect()
    gc.disable()
    try:
        for seconds in range(1, 21):  # each asked for the first time
            target = f"/tokens/sandbox/ada?min_ttl={seconds}"
            await connection.send(f"GET {target} HTTP/1.1\r\nHost: broker\r\n{KEY}\r\n")
            assert (await connection.answer())[0] == 200
        cycles = [each for each in gc.get_objects() if type(each) is RequestResponseCycle]
    finally:
        gc.enable()
    assert len(cycles) == 1  # the last one, which the connection has still


@pytest.mark.usefixtures("connect")
async def test_the_garbage_collector_leaves_alone_what_is_there_at_the_start() -> None:
    assert gc.get_freeze_count() > 10_000
    assert gc.get_threshold()[0] > 700  # as Python comes
