"""Answers that no library would give, and requests that none would send: byte for byte, over sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, Replica, Replicas, bring
from tests.gateway.conftest import served, write_acme
from tests.gateway.raw import MARK, Raw

HEADERS = {"Authorization": f"Bearer {ADMIN_KEY}"}
KEY = f"Host: b\r\nAuthorization: Bearer {ADMIN_KEY}\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"


@pytest.fixture
async def raw() -> AsyncIterator[Raw]:
    async with Raw.running() as running:
        yield running


@pytest.fixture
def providers_dir(providers_dir: Path, sandbox: Sandbox, raw: Raw) -> Path:
    write_acme(providers_dir, sandbox, f'api: {{base_url: "{raw.url}"}}')
    return providers_dir


@pytest.fixture
async def replica(replicas: Replicas, sandbox: Sandbox) -> AsyncIterator[Replica]:
    """With answers of `/kept` that are kept."""
    replica = await asyncio.to_thread(served, replicas, clients__acme__resources='{"/kept": 180}')
    async with httpx.AsyncClient(base_url=replica.url, headers=HEADERS) as http:
        brought = bring(sandbox.grant("ada"), expires_in=300)
        assert (await http.put("/grants/acme/ada", json=brought)).status_code == 201
    yield replica
    assert "crashed" not in replica.log.read_text()
    assert "Traceback" not in replica.log.read_text()


async def told(replica: Replica, target: str, *, method: str = "GET", more: bytes = b"") -> bytes:
    """All that is answered until the connection ends, to a request whose last header is `more`."""
    reader, writer = await connection(replica)
    writer.write(f"{method} /proxy/acme/ada{target} HTTP/1.1\r\n{KEY}Connection: close\r\n".encode() + more)
    writer.write(b"\r\n")
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def connection(replica: Replica) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(replica.url.rpartition(":")[2]))


def fields(answer: bytes) -> dict[str, str]:
    lines = answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def test_what_is_no_header_does_not_end_the_answer(replica: Replica, raw: Raw) -> None:
    raw.answer = b"HTTP/1.1 200 OK\r\nX-A: a\x01\x7fb\r\nX-B: 1\r\nContent-Length: 2\r\n\r\nok"
    for target in ("/x", "/kept/x", "/kept/x", "/kept/x"):  # by the route, and by the lane
        answer = await told(replica, target)
        assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\nok")
        assert "x-a" not in fields(answer) and fields(answer)["x-b"] == "1"


async def test_an_answer_without_a_body_that_has_a_length_is_answered(replica: Replica, raw: Raw) -> None:
    for line in (b"304 Not Modified", b"204 No Content"):
        raw.answer = b"HTTP/1.1 " + line + b'\r\nETag: "7"\r\nContent-Length: 500\r\n\r\n'
        for method in ("GET", "HEAD", "POST", "DELETE"):
            answer = await told(replica, "/x", method=method)
            assert answer.startswith(b"HTTP/1.1 " + line[:3]) and answer.endswith(b"\r\n\r\n")
            assert fields(answer)["etag"] == '"7"' and "content-length" not in fields(answer)


async def test_a_header_is_sent_byte_for_byte_or_not_at_all(replica: Replica, raw: Raw) -> None:
    assert (await told(replica, "/x", more=b"X-Name: caf\xc3\xa9\r\n")).startswith(b"HTTP/1.1 200 ")
    assert b": caf\xc3\xa9\r\n" in raw.seen[-1]
    answer = await told(replica, "/x", more=b"X-Name: caf\xe9\r\n")
    assert answer.startswith(b"HTTP/1.1 422 ") and b"header.x-name" in answer and len(raw.seen) == 1


async def test_an_answer_that_comes_bit_by_bit_is_given_so(replica: Replica, raw: Raw) -> None:
    raw.answer = CHUNKED + MARK + b"4\r\nlast\r\n0\r\n\r\n"
    for target in ("/x", "/kept/x"):
        raw.goes_on.clear()
        reader, writer = await connection(replica)
        writer.write(f"GET /proxy/acme/ada{target} HTTP/1.1\r\n{KEY}Connection: close\r\n\r\n".encode())
        async with asyncio.timeout(10):
            await reader.readuntil(b"first")
            raw.goes_on.set()  # only now does the provider say more
            assert b"last" in await reader.read()
        writer.close()
