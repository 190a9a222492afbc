"""The door to token endpoints, against raw servers that break HTTP: no doubt remains of what was sent."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
import threading
import time
import traceback
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from app.errors import Category, ProviderError, ProviderUnavailable, Sent, UpstreamError
from app.oauth import door
from app.oauth.answers import TokenSet
from app.oauth.client import OAuthClient
from app.oauth.door import MAX_ANSWER_BYTES
from app.oauth.endpoints import TokenEndpoints
from app.oauth.provider import Provider
from app.outbound.addresses import Reachable
from tests.broker import free_port

TOKENS = b'{"access_token": "at", "token_type": "Bearer"}'
TIMEOUT_SECONDS = 0.4
LOOPBACK = Reachable(loopback=True)
REFRESH_TOKEN, CLIENT_SECRET, ANSWERS_SECRET = "a-refresh-token", "a-client-secret", "an-answers-secret"


@dataclass(frozen=True)
class Request:
    """What a server read of one request."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode()))


@dataclass
class Call:
    """One connection that a server has accepted."""

    server: Server
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> Request:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        request = Request(head[0], headers, body)
        self.server.requests.append(request)
        return request

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            self.server.bytes_sent += len(part)
            await self.writer.drain()

    def reset(self) -> None:
        """Closes with RST, as a crash or a firewall does."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


@dataclass
class Server:
    """Where it listens, what it was asked on how many connections, and how much of its answers was taken."""

    port: int = 0
    connections: int = 0
    bytes_sent: int = 0
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


Serve = Callable[[Call], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[Server]:
    """A server that hands each of its connections to `serve`, and closes it afterwards."""
    server, tasks = Server(), set[asyncio.Task[None]]()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(Call(server, reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the test has ended
        finally:
            writer.close()

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def _full_backlog() -> Iterator[int]:
    """A port whose queue of connections is full, so that the next one hangs."""
    with ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def response(body: bytes = TOKENS, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answering(*answers: bytes) -> Serve:
    """Answers the requests of a connection in turn, the last answer again and again."""

    async def serve(call: Call) -> None:
        for turn in range(1000):
            await call.request()
            await call.send(answers[min(turn, len(answers) - 1)])

    return serve


def acme(url: str, **entry: Any) -> OAuthClient:
    provider = Provider.model_validate({"name": "acme", "token_url": f"{url}/token", **entry})
    return OAuthClient("acme", provider, client_id="broker", client_secret=CLIENT_SECRET)


@pytest.fixture(scope="module")
async def endpoints() -> AsyncIterator[TokenEndpoints]:
    """One for all: what a server did to its predecessor must not matter to the next."""
    opened = TokenEndpoints(LOOPBACK, timeout_seconds=10)
    yield opened
    await opened.close()


@pytest.fixture
async def hasty() -> AsyncIterator[TokenEndpoints]:
    """Waits for `TIMEOUT_SECONDS` only."""
    opened = TokenEndpoints(LOOPBACK, timeout_seconds=TIMEOUT_SECONDS)
    yield opened
    await opened.close()


async def refresh(endpoints: TokenEndpoints, url: str, **entry: Any) -> TokenSet:
    return await endpoints.refresh(acme(url, **entry), refresh_token=REFRESH_TOKEN)


async def failure(endpoints: TokenEndpoints, url: str, **entry: Any) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await refresh(endpoints, url, **entry)
    return caught.value


async def test_a_refused_connection_means_that_nothing_was_sent(endpoints: TokenEndpoints) -> None:
    error = await failure(endpoints, f"http://127.0.0.1:{free_port()}")
    assert isinstance(error, ProviderUnavailable)
    assert (error.sent, error.category, error.provider) == (Sent.NOT_SENT, Category.NETWORK, "acme")
    assert error.detail.startswith("acme cannot be reached")


async def test_a_name_that_does_not_resolve_means_that_nothing_was_sent(
    endpoints: TokenEndpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = await failure(endpoints, "https://nowhere.invalid")
    assert (error.sent, error.category) == (Sent.NOT_SENT, Category.NETWORK)


async def test_a_connect_that_hangs_means_that_nothing_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "CONNECT_SECONDS", 0.2)
    endpoints = TokenEndpoints(LOOPBACK, timeout_seconds=5)
    with _full_backlog() as port:
        error = await failure(endpoints, f"http://127.0.0.1:{port}")
    await endpoints.close()
    assert (error.sent, error.category) == (Sent.NOT_SENT, Category.NETWORK)


@pytest.mark.parametrize("farewell", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
async def test_a_failed_tls_handshake_means_that_nothing_was_sent(
    endpoints: TokenEndpoints, farewell: bytes
) -> None:
    async def serve(call: Call) -> None:
        await call.reader.read(1)
        await call.send(farewell)

    async with listening(serve) as server:
        error = await failure(endpoints, f"https://127.0.0.1:{server.port}")
    assert (error.sent, error.category) == (Sent.NOT_SENT, Category.NETWORK)


async def _close(call: Call) -> None:
    await call.request()


async def _reset(call: Call) -> None:
    await call.request()
    call.reset()


async def _reset_before_reading(call: Call) -> None:
    call.reset()


async def _hang(call: Call) -> None:
    await call.request()
    await asyncio.sleep(60)


def _half(part: bytes) -> Serve:
    async def serve(call: Call) -> None:
        await call.request()
        await call.send(part)

    return serve


def _half_and_reset(part: bytes) -> Serve:
    async def serve(call: Call) -> None:
        await call.request()
        await call.send(part)
        await asyncio.sleep(0.05)
        call.reset()

    return serve


@pytest.mark.parametrize(
    "serve",
    [
        pytest.param(_close, id="close"),
        pytest.param(_reset, id="reset"),
        pytest.param(_reset_before_reading, id="reset before reading"),
        pytest.param(_half(b"HTTP/1.1 200 O"), id="half a status line"),
        pytest.param(_half(b"HTTP/1.1 200 OK\r\nContent-Le"), id="half a header"),
        pytest.param(_half(response(length=5000)), id="half a body"),
        pytest.param(_half_and_reset(response(length=5000)), id="half a body, then a reset"),
        pytest.param(_half(response(b"2e\r\n{", "Transfer-Encoding: chunked")), id="both lengths"),
        pytest.param(
            _half(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2e\r\n{"), id="half a chunk"
        ),
        pytest.param(_half(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), id="no chunk"),
        pytest.param(_half(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"), id="no HTTP"),
        pytest.param(_half(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"), id="huge header"),
        pytest.param(_half(b"HTTP/1.1 200 OK\r\nX : y\r\n\x00\r\n\r\n"), id="bad header"),
    ],
)
async def test_a_failure_after_the_request_was_written_is_an_unknown_outcome(
    endpoints: TokenEndpoints, serve: Serve
) -> None:
    async with listening(serve) as server:
        error = await failure(endpoints, server.url)
    assert isinstance(error, ProviderUnavailable)
    assert (error.sent, error.category) == (Sent.UNKNOWN, Category.NETWORK)


async def test_a_body_that_ends_with_the_connection_too_early_is_an_unknown_outcome(
    endpoints: TokenEndpoints,
) -> None:
    async with listening(_half(b'HTTP/1.1 200 OK\r\n\r\n{"access_token": "at"')) as server:
        error = await failure(endpoints, server.url)
    assert (error.sent, error.provider_code) == (Sent.UNKNOWN, "no_usable_access_token")


async def test_a_request_is_never_written_twice_behind_our_back(endpoints: TokenEndpoints) -> None:
    async def serve(call: Call) -> None:
        await call.request()
        await call.send(response())
        await call.request()  # on the connection that was kept: this one gets no answer

    async with listening(serve) as server:
        await refresh(endpoints, server.url)
        error = await failure(endpoints, server.url)
    assert error.sent is Sent.UNKNOWN
    assert (len(server.requests), server.connections) == (2, 1)


def _drip(head: bytes, drop: bytes) -> Serve:
    async def serve(call: Call) -> None:
        await call.request()
        await call.send(head)
        while True:
            await call.send(drop)
            await asyncio.sleep(0.05)

    return serve


@pytest.mark.parametrize(
    "serve",
    [
        pytest.param(_hang, id="silence"),
        pytest.param(_drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), id="headers"),
        pytest.param(_drip(response(b"", length=5000), b" "), id="body"),
        pytest.param(
            _drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"), id="chunks"
        ),
        pytest.param(_drip(b"", b"HTTP/1.1 102 Processing\r\n\r\n"), id="interim answers"),
    ],
)
async def test_however_slow_it_drips_the_deadline_is_total(hasty: TokenEndpoints, serve: Serve) -> None:
    async with listening(serve) as server:
        began = time.monotonic()
        error = await failure(hasty, server.url)
        elapsed = time.monotonic() - began
    assert (error.sent, error.category) == (Sent.UNKNOWN, Category.NETWORK)
    assert TIMEOUT_SECONDS * 0.9 <= elapsed < TIMEOUT_SECONDS + 3  # a machine may be busy


async def test_a_cancelled_request_is_cancelled(endpoints: TokenEndpoints) -> None:
    async with listening(_hang) as server:
        task = asyncio.create_task(refresh(endpoints, server.url))
        while not server.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_large_answer_is_refused_without_being_read(endpoints: TokenEndpoints) -> None:
    size = 5_000_000

    async def serve(call: Call) -> None:
        call.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        await call.request()
        await call.send(response(b"", length=size), *[b" " * 16384] * (size // 16384))

    async with listening(serve) as server:
        error = await failure(endpoints, server.url)
    assert isinstance(error, ProviderError)
    assert (error.sent, error.provider_code) == (Sent.UNKNOWN, "answer_too_large")
    assert server.bytes_sent < 2_000_000  # what the kernel's buffers take


async def test_64_kib_are_still_read_and_a_byte_more_is_not(endpoints: TokenEndpoints) -> None:
    most = TOKENS.ljust(MAX_ANSWER_BYTES)
    async with listening(answering(response(most), response(most + b" "))) as server:
        assert (await refresh(endpoints, server.url)).access_token == "at"
        error = await failure(endpoints, server.url)
    assert error.provider_code == "answer_too_large"


async def test_an_endless_answer_is_refused_too(endpoints: TokenEndpoints) -> None:
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"

    async def serve(call: Call) -> None:
        await call.request()
        await call.send(b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await call.send(chunk)

    async with listening(serve) as server:
        error = await failure(endpoints, server.url)
    assert (error.sent, error.provider_code) == (Sent.UNKNOWN, "answer_too_large")


def _raw_deflate(body: bytes) -> bytes:
    return zlib.compress(body, wbits=-15)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": _raw_deflate,
}


@pytest.mark.parametrize("encoding", PACKERS)
async def test_an_answer_that_is_compressed_unasked_is_understood(
    endpoints: TokenEndpoints, encoding: str
) -> None:
    """It may hold the only refresh token that works."""
    packed = PACKERS[encoding](TOKENS)
    async with listening(answering(response(packed, f"Content-Encoding: {encoding}"))) as server:
        assert (await refresh(endpoints, server.url)).access_token == "at"
    assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_small_answer_does_not_become_a_large_one(endpoints: TokenEndpoints, encoding: str) -> None:
    bomb = PACKERS[encoding](TOKENS.ljust(40_000_000))
    assert len(bomb) < MAX_ANSWER_BYTES
    tracemalloc.start()
    try:
        async with listening(answering(response(bomb, f"Content-Encoding: {encoding}"))) as server:
            error = await failure(endpoints, server.url)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (error.sent, error.provider_code) == (Sent.UNKNOWN, "answer_too_large")
    assert most < 4_000_000


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip", "deflate", "gzip, gzip", "identity", ""])
async def test_an_answer_is_read_as_it_is_where_its_encoding_is_unknown_or_a_lie(
    endpoints: TokenEndpoints, encoding: str
) -> None:
    async with listening(answering(response(TOKENS, f"Content-Encoding: {encoding}"))) as server:
        assert (await refresh(endpoints, server.url)).access_token == "at"


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"X: " + b"x" * 9000 + b"\r\n", id="a long header"),
        pytest.param(b"x" * 9000 + b": 1\r\n", id="a long name"),
        pytest.param(b"X: y\r\n" * 20_000, id="many headers"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", id="a chunk that is none"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 20 + b"\r\n", id="a huge chunk"),
        pytest.param(b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}", id="two lengths"),
        pytest.param(b"Content-Length: -1\r\n\r\n{}", id="a negative length"),
        pytest.param(b"X\0: y\r\n\r\n", id="a null"),
    ],
)
async def test_an_answer_that_is_no_http_is_an_unknown_outcome(hasty: TokenEndpoints, head: bytes) -> None:
    async def serve(call: Call) -> None:
        await call.request()
        await call.send(b"HTTP/1.1 200 OK\r\n", head)
        await asyncio.sleep(5)

    async with listening(serve) as server:
        error = await failure(hasty, server.url)
    assert (error.sent, error.category) == (Sent.UNKNOWN, Category.NETWORK)
    assert error.provider_code != "timeout"  # it was not waited for more


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Again", "308 Forever"])
async def test_no_redirect_is_followed(endpoints: TokenEndpoints, status: str) -> None:
    async with listening(answering(response())) as target:
        moved = response(b"", f"Location: {target.url}/token", status=status)
        async with listening(answering(moved)) as server:
            error = await failure(endpoints, server.url)
    assert (error.sent, error.provider_code) == (Sent.ANSWERED, f"status_{status[:3]}")
    assert (len(server.requests), len(target.requests)) == (1, 0)


async def test_no_cookie_of_one_answer_goes_along_with_the_next_request(endpoints: TokenEndpoints) -> None:
    async with listening(answering(response(TOKENS, "Set-Cookie: session=ada; Path=/"))) as server:
        # By name, since some cookie jars keep nothing for addresses anyway.
        for _ in range(2):
            await refresh(endpoints, f"http://localhost:{server.port}")
    assert len(server.requests) == 2
    assert [request.headers.get("cookie") for request in server.requests] == [None, None]


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(answering(response())) as proxy, listening(answering(response())) as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv(name.lower(), proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        endpoints = TokenEndpoints(LOOPBACK)
        await refresh(endpoints, server.url)
        await endpoints.close()
    assert (len(server.requests), proxy.connections) == (1, 0)


async def test_passwords_of_the_home_folder_are_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("default login ada password lovelace\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    endpoints = TokenEndpoints(LOOPBACK)
    async with listening(answering(response())) as server:
        await refresh(endpoints, server.url, client_authentication="none")
    await endpoints.close()
    assert "authorization" not in server.requests[0].headers


async def test_no_error_tells_a_secret(endpoints: TokenEndpoints) -> None:
    part = json.dumps({"refresh_token": ANSWERS_SECRET}).encode()
    async with listening(_half(response(part, length=5000))) as server:
        error = await failure(endpoints, server.url, client_authentication="post")
    shown = "".join([repr(error), error.detail, str(vars(error)), *traceback.format_exception(error)])
    secrets = (REFRESH_TOKEN, CLIENT_SECRET, ANSWERS_SECRET)
    assert [secret for secret in secrets if secret in shown] == []


async def test_a_refresh_posts_the_refresh_token_once(endpoints: TokenEndpoints) -> None:
    async with listening(answering(response())) as server:
        assert (await refresh(endpoints, server.url)).access_token == "at"
    (request,) = server.requests
    assert request.line == "POST /token HTTP/1.1"
    assert request.form == {"grant_type": "refresh_token", "refresh_token": REFRESH_TOKEN}


async def test_a_code_is_exchanged_with_its_verifier(endpoints: TokenEndpoints) -> None:
    async with listening(answering(response())) as server:
        await endpoints.exchange_code(
            acme(server.url), code="c", redirect_uri="https://b.example/cb", code_verifier="v" * 43
        )
    form = server.requests[0].form
    assert (form["code"], form["redirect_uri"], form["code_verifier"]) == (
        "c",
        "https://b.example/cb",
        "v" * 43,
    )


async def test_header_names_are_read_without_case(endpoints: TokenEndpoints) -> None:
    busy = response(b"", "RETRY-after: 17", status="429 Slow down")
    async with listening(answering(busy)) as server:
        error = await failure(endpoints, server.url)
    assert (error.retry_after, error.sent, error.category) == (17, Sent.ANSWERED, Category.RATE_LIMIT)


async def test_there_is_nothing_to_revoke_without_an_endpoint(endpoints: TokenEndpoints) -> None:
    client = acme("https://login.acme.example")
    assert await endpoints.revoke(client, token="rt", hint="refresh_token") is None


@pytest.mark.parametrize(("status", "revoked"), [("200 OK", True), ("400 Bad", False)])
async def test_a_revocation_tells_whether_it_worked(
    endpoints: TokenEndpoints, status: str, revoked: bool
) -> None:
    async with listening(answering(response(b"", status=status))) as server:
        client = acme(server.url, revocation_url=f"{server.url}/revoke")
        assert await endpoints.revoke(client, token="rt", hint="refresh_token") is revoked
    assert server.requests[0].line == "POST /revoke HTTP/1.1"
    assert server.requests[0].form == {"token": "rt", "token_type_hint": "refresh_token"}


async def test_a_revocation_that_cannot_be_sent_is_an_error(endpoints: TokenEndpoints) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ProviderUnavailable) as caught:
        await endpoints.revoke(acme(url, revocation_url=f"{url}/revoke"), token="rt", hint="refresh_token")
    assert caught.value.sent is Sent.NOT_SENT


async def test_requests_at_the_same_time_each_get_their_own_answer(endpoints: TokenEndpoints) -> None:
    async def serve(call: Call) -> None:
        for _ in range(100):
            token = (await call.request()).form["refresh_token"]
            await asyncio.sleep(0.01)
            await call.send(response(json.dumps({"access_token": f"for-{token}"}).encode()))

    names = [f"user-{number}" for number in range(50)]
    async with listening(serve) as server:
        client = acme(server.url)
        found = await asyncio.gather(*(endpoints.refresh(client, refresh_token=name) for name in names))
    assert [tokens.access_token for tokens in found] == [f"for-{name}" for name in names]
    assert server.connections <= len(names)


async def test_a_connection_closed_while_idle_is_not_written_to(endpoints: TokenEndpoints) -> None:
    async with listening(_half(response())) as server:
        await refresh(endpoints, server.url)
        await asyncio.sleep(0.05)
        await refresh(endpoints, server.url)
    assert (len(server.requests), server.connections) == (2, 2)


async def test_a_slow_provider_does_not_hold_up_another(endpoints: TokenEndpoints) -> None:
    async with listening(_hang) as slow, listening(answering(response())) as quick:
        waiting = [asyncio.create_task(refresh(endpoints, slow.url)) for _ in range(20)]
        await refresh(endpoints, quick.url)
        assert not [task for task in waiting if task.done()]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_an_answer_that_came_while_the_process_was_paused_is_found() -> None:
    """The deadline is over when it wakes, and the answer lies in the socket's buffer."""
    endpoints, asked = TokenEndpoints(LOOPBACK, timeout_seconds=1.0), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        provider = threading.Thread(target=_answer_one, args=[listener, asked])
        provider.start()
        asking = asyncio.create_task(refresh(endpoints, f"http://127.0.0.1:{listener.getsockname()[1]}"))
        while not asked.is_set():
            await asyncio.sleep(0.01)
        time.sleep(1.5)  # noqa: ASYNC251 -- as SIGSTOP would: the event loop stands still
        assert (await asking).access_token == "an-access-token"
        provider.join()
    await endpoints.close()


def _answer_one(listener: socket.socket, asked: threading.Event) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        asked.set()
        time.sleep(0.3)
        connection.sendall(response(b'{"access_token": "an-access-token", "token_type": "Bearer"}'))
