"""Bodies that stream both ways, over sockets: what they cost, and what is seen when either end goes away."""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, Replica, Replicas, bring
from tests.gateway.conftest import served
from tests.gateway.upstream import Upstream, breaking_off, hello, pieces, silence

MIB = 1024 * 1024
LARGE = 100 * MIB
MOST = 20 * MIB
HEADERS = {"Authorization": f"Bearer {ADMIN_KEY}"}
GET = f"GET /proxy/acme/ada/file HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer {ADMIN_KEY}\r\n"
PASSING_BY = {"Cache-Control": "no-store"}  # as it comes: a body that is gathered first would be a problem


@pytest.fixture
async def replica(replicas: Replicas, sandbox: Sandbox) -> Replica:
    replica = await asyncio.to_thread(served, replicas)
    async with client(replica) as http:
        brought = bring(sandbox.grant("ada"), expires_in=300)
        assert (await http.put("/grants/acme/ada", json=brought)).status_code == 201
        assert (await http.get("/proxy/acme/ada/warm")).status_code == 200
    return replica


def client(replica: Replica) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=replica.url, headers=HEADERS, timeout=60)


async def test_a_large_answer_streams_through_in_little_memory(replica: Replica, upstream: Upstream) -> None:
    upstream.answers = [pieces(LARGE // 65536, 65536)]
    before = memory(replica)
    async with client(replica) as http, http.stream("GET", "/proxy/acme/ada/file") as answer:
        seen = 0
        async for piece in answer.aiter_raw():
            seen += len(piece)
    assert seen == LARGE
    assert peak(replica) - before <= MOST


async def test_a_large_body_streams_through_in_little_memory(replica: Replica, upstream: Upstream) -> None:
    taken = hashlib.sha256()

    async def take(request: web.BaseRequest) -> web.StreamResponse:
        async for piece in request.content.iter_any():
            taken.update(piece)
        return web.Response(text="done")

    async def growing() -> AsyncIterator[bytes]:
        for number in range(LARGE // 65536):
            yield bytes([number % 256]) * 65536

    upstream.reads, upstream.answers = False, [take]
    before = memory(replica)
    async with client(replica) as http:
        answer = await http.post("/proxy/acme/ada/files", content=growing())
    whole = hashlib.sha256()
    for number in range(LARGE // 65536):
        whole.update(bytes([number % 256]) * 65536)
    assert answer.text == "done" and taken.digest() == whole.digest()
    assert peak(replica) - before <= MOST


async def test_a_slow_reader_holds_the_provider_up_rather_than_filling_memory(
    replica: Replica, upstream: Upstream
) -> None:
    upstream.answers = [pieces(LARGE // 65536, 65536)]
    before = memory(replica)
    reader, writer = await connection(replica)
    writer.write(f"{GET}\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(1)
    assert peak(replica) - before <= MOST
    writer.transport.abort()
    await until(lambda: upstream.hung_up == 1)


async def test_a_client_that_hangs_up_ends_the_providers_request(
    replica: Replica, upstream: Upstream
) -> None:
    upstream.answers = [silence]
    _, writer = await connection(replica)
    writer.write(f"{GET}\r\n".encode())
    await until(lambda: len(upstream.seen) == 2)
    writer.transport.abort()
    await until(lambda: upstream.hung_up == 1)
    await until(lambda: '"outcome": "hung_up"' in replica.log.read_text())
    assert "Exception" not in replica.log.read_text() and "crashed" not in replica.log.read_text()


async def test_a_client_that_has_hung_up_already_leaves_nothing_open(
    replica: Replica, upstream: Upstream
) -> None:
    """While its key was looked up, which is before anybody watched."""
    upstream.answers = [pieces(1000, 10, pause=0.05)]
    await asyncio.sleep(6)  # the key is not known any more
    clients = [
        socket.create_connection(("127.0.0.1", int(replica.url.rpartition(":")[2]))) for _ in range(20)
    ]
    for number, each in enumerate(clients):
        each.sendall(f"{GET.replace('file', f'file/{number}')}\r\n".encode())
    for each in clients:
        each.close()
    await until(lambda: replica.log.read_text().count('"outcome": "hung_up"') == 20)
    await until(lambda: len(upstream.seen) - 1 == upstream.hung_up)
    assert "Exception" not in replica.log.read_text() and "crashed" not in replica.log.read_text()


async def test_a_client_that_hangs_up_in_its_body_ends_the_providers_request(
    replica: Replica, upstream: Upstream
) -> None:
    _, writer = await connection(replica)
    head = GET.replace("GET", "PUT").encode() + b"Content-Length: 1000000\r\n\r\n"
    writer.write(head + bytes(200_000))
    await writer.drain()
    await asyncio.sleep(0.3)
    writer.transport.abort()
    await until(lambda: '"outcome": "hung_up"' in replica.log.read_text())
    assert "Exception" not in replica.log.read_text() and len(upstream.seen) == 1


@pytest.mark.parametrize("announced", [None, 200_000])
async def test_an_answer_that_breaks_off_is_broken_for_the_caller(
    replica: Replica, upstream: Upstream, announced: int | None
) -> None:
    upstream.answers = [breaking_off(100_000, announced=announced)]
    async with client(replica) as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get("/proxy/acme/ada/file", headers=PASSING_BY)
        upstream.answers = [hello]
        assert (await http.get("/proxy/acme/ada/me")).status_code == 200
    log = replica.log.read_text()
    assert "broken_off" in log and "crashed" not in log and "ASGI" not in log and "Traceback" not in log


async def test_an_answer_that_grows_too_large_is_broken_for_the_caller(
    replicas: Replicas, sandbox: Sandbox, upstream: Upstream
) -> None:
    replica = await asyncio.to_thread(served, replicas, proxy_max_bytes=str(128 * 1024))
    upstream.answers = [pieces(100, 4096)]
    async with client(replica) as http:
        await http.put("/grants/acme/ada", json=bring(sandbox.grant("ada"), expires_in=300))
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get("/proxy/acme/ada/file", headers=PASSING_BY)


async def test_a_head_is_passed_on_before_there_is_a_body(replica: Replica, upstream: Upstream) -> None:
    upstream.answers = [pieces(3, 10, pause=0.5)]
    reader, writer = await connection(replica)
    began = asyncio.get_running_loop().time()
    writer.write(f"{GET}\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    first = await reader.readuntil(b"\r\n")
    assert b" 200 " in head and int(first, 16) == 10
    assert asyncio.get_running_loop().time() - began < 1
    writer.close()


async def test_an_early_answer_does_not_wait_for_the_rest_of_the_body(
    replica: Replica, upstream: Upstream
) -> None:
    async def refuse(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=413, text="no")

    upstream.reads, upstream.answers = False, [refuse]
    reader, writer = await connection(replica)
    head = GET.replace("GET", "PUT").encode() + b"Content-Length: 1000000\r\n\r\n"
    writer.write(head + bytes(200_000))
    line = await asyncio.wait_for(reader.readline(), timeout=10)
    assert b" 413 " in line
    writer.close()


async def test_calls_under_way_are_answered_while_a_replica_leaves(
    replica: Replica, upstream: Upstream
) -> None:
    upstream.answers = [pieces(10, 1000, pause=0.2)]
    async with client(replica) as http, http.stream("GET", "/proxy/acme/ada/file") as answer:
        replica.terminate()
        content = b"".join([piece async for piece in answer.aiter_raw()])
    assert content == bytes(10_000)
    assert await asyncio.to_thread(replica.wait) == 0


async def connection(replica: Replica) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(replica.url.rpartition(":")[2]), limit=65536)


async def until(holds: Callable[[], bool], *, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.02)


def memory(replica: Replica) -> int:
    """Bytes in memory now; from now on `peak` tells the most there were."""
    Path(f"/proc/{replica.process.pid}/clear_refs").write_text("5")
    return _status(replica, "VmRSS")


def peak(replica: Replica) -> int:
    return _status(replica, "VmHWM")


def _status(replica: Replica, name: str) -> int:
    text = Path(f"/proc/{replica.process.pid}/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
