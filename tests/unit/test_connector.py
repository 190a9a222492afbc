"""Connections that are kept, and those that are wanted and not free, against real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from threading import Event, Thread

import pytest

from app.errors import Category, ProviderUnavailable, Sent
from app.oauth.client import OAuthClient
from app.oauth.door import Door
from app.oauth.provider import Provider
from app.oauth.wire import HttpRequest, StreamRequest
from app.outbound.addresses import Reachable

ADAS, BOBS = b'{"access_token": "ada"}', b'{"access_token": "bob"}'


class Talkative:
    """Answers whoever asks with Bob's token, on a thread of its own. What `says` is goes out on its own account, once after an
    answer, when it is told to."""

    def __init__(self) -> None:
        self.answer = answer(BOBS)
        self.says = b""
        self.speak, self.has_spoken = Event(), Event()
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/token"
        Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self.speak.set()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, suppress(ConnectionError):
            while connection.recv(65536):
                connection.sendall(self.answer)
                if self.says:
                    self.speak.wait(10)
                    connection.sendall(self.says)
                    self.says = b""
                    self.has_spoken.set()


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


CLIENT = OAuthClient(
    "acme",
    Provider.model_validate({"name": "acme", "token_url": "https://acme.example/token"}),
    "broker",
    "secret",
)


@pytest.fixture
def provider() -> Iterator[Talkative]:
    talkative = Talkative()
    yield talkative
    talkative.close()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    opened = Door(Reachable(loopback=True), timeout_seconds=5)
    yield opened
    await opened.close()


async def sent(door: Door, url: str) -> bytes:
    """What a token endpoint is asked."""
    return (await door.send(CLIENT, HttpRequest(url, {}, b""))).body


async def opened(door: Door, url: str) -> bytes:
    """What an API is asked."""
    exchange = await door.open(
        CLIENT, StreamRequest("GET", url, url, {}, b""), seconds=5, max_bytes=1024 * 1024
    )
    body = b""
    while piece := await exchange.piece():
        body += piece
    exchange.close()
    return body


ASKED = {"token endpoint": sent, "api": opened}


@pytest.mark.parametrize("way", ASKED)
@pytest.mark.parametrize("is_read", [True, False], ids=["read", "still in the socket"])
@pytest.mark.parametrize("said", [answer(ADAS), b"HTTP/1.1 200 OK\r\nContent-Le", b"\r\n"])
async def test_what_a_provider_says_between_two_requests_answers_neither(
    provider: Talkative, door: Door, way: str, is_read: bool, said: bytes
) -> None:
    provider.says = said
    assert await ASKED[way](door, provider.url) == BOBS
    provider.speak.set()
    if is_read:
        assert await asyncio.to_thread(provider.has_spoken.wait, 10)
        await asyncio.sleep(0.05)
    else:
        assert provider.has_spoken.wait(10)  # nothing is read meanwhile
    assert await ASKED[way](door, provider.url) == BOBS
    if not is_read or said.endswith(ADAS):
        assert provider.connections == 2


@pytest.mark.parametrize("way", ASKED)
async def test_a_connection_on_which_nothing_came_is_used_again(
    provider: Talkative, door: Door, way: str
) -> None:
    for _ in range(3):
        assert await ASKED[way](door, provider.url) == BOBS
    assert provider.connections == 1


async def test_a_crowd_of_our_own_says_nothing_of_the_provider(
    provider: Talkative, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.outbound.http._PER_HOST", 1)
    provider.answer = answer(BOBS)[:-1]
    door = Door(Reachable(loopback=True), timeout_seconds=1)
    request = StreamRequest("GET", provider.url, provider.url, {}, b"")
    held = await door.open(CLIENT, request, seconds=5, max_bytes=1024)
    with pytest.raises(ProviderUnavailable) as caught:
        await door.open(CLIENT, request, seconds=5, max_bytes=1024)
    held.close()
    await door.close()
    error = caught.value
    assert (error.sent, error.category) == (Sent.NOT_SENT, Category.RATE_LIMIT)
    assert (error.provider_code, error.retry_after) == ("no_connection_free", 1)
