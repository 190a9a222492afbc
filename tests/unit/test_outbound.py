"""Where requests go, against real sockets: nothing that is not reachable is connected to, whatever leads there."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from app.errors import Category, ProviderUnavailable, Sent, UpstreamError
from app.oauth.client import OAuthClient
from app.oauth.door import Door
from app.oauth.endpoints import TokenEndpoints
from app.oauth.provider import Provider
from app.oauth.wire import HttpRequest
from app.outbound.addresses import AddressRefused, Reachable
from app.outbound.http import Outbound

TOKENS = b'{"access_token": "at", "token_type": "Bearer"}'
_watched: list[tuple[str, Any]] | None = None


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if _watched is not None and event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        _watched.append((event, args[1] if event == "socket.connect" else args[0]))


sys.addaudithook(_watch)


@contextmanager
def watching() -> Iterator[list[tuple[str, Any]]]:
    """What the interpreter connects to and resolves meanwhile, whoever has it do so."""
    global _watched
    seen: list[tuple[str, Any]] = []
    _watched = seen
    try:
        yield seen
    finally:
        _watched = None


@dataclass
class Inside:
    """Listens on all addresses of this machine, on one port, and counts."""

    port: int
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(TOKENS), TOKENS)
    peers: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.peers.append(writer.get_extra_info("sockname")[0])
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.requests.append(head)
                lines = head.lower().split(b"content-length: ")
                await reader.readexactly(int(lines[1].split(b"\r")[0]) if len(lines) > 1 else 0)
                writer.write(self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def inside() -> AsyncIterator[Inside]:
    listener = socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET)
    if listener.family is socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(("", 0))
    counting = Inside(listener.getsockname()[1])
    async with await asyncio.start_server(counting.serve, sock=listener):
        yield counting


class Names(AbstractResolver):
    """Answers what it is told to, a new answer for each question; the last one again and again."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): turns for name, turns in answers.items()}
        self.asked: list[str] = []
        self.given: list[list[ResolveResult]] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        turns = self.answers[host]
        addresses = turns.pop(0) if len(turns) > 1 else turns[0]
        found = [_resolved(host, address, port) for address in addresses]
        self.given.append(found)
        return found

    async def close(self) -> None:
        pass


def _resolved(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(
        hostname=host, host=address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST
    )


Use = Callable[[Names], Names]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Puts these names in the place of the system's resolver."""

    def use_names(names: Names) -> Names:
        monkeypatch.setattr(aiohttp, "DefaultResolver", lambda: names)
        return names

    return use_names


class OnlyTwo(Reachable):
    """As if 127.0.0.2 were a public address, and nothing else."""

    def admits(self, address: str) -> bool:
        return address == "127.0.0.2"


def acme(**entry: Any) -> OAuthClient:
    given = {"token_url": "https://acme.example/token", **entry}
    return OAuthClient("acme", Provider.model_validate({"name": "acme", **given}), "broker", "secret")


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    opened = Door(Reachable(), timeout_seconds=5)
    yield opened
    await opened.close()


async def refused(door: Door, url: str) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await door.send(acme(), HttpRequest(url, {}, b"refresh_token=rt"))
    return caught.value


ADDRESSES = [
    *(
        "127.0.0.1",
        "127.0.0.2",
        "127.1",
        "127.0.1",
        "127.255.255.254",
        "2130706433",
        "017700000001",
        "0x7f000001",
    ),
    *(
        "0x7f.1",
        "0X7F.0X0.0X0.0X1",
        "0177.0.0.1",
        "0177.0.0.01",
        "127.000.000.001",
        "127.0.0.1.",
        "0",
        "0.0.0.0",
    ),
    *(
        "0.0.0.0.",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::FFFF:7F00:1]",
        "[::127.0.0.1]",
    ),
    *("[::ffff:0:127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b::10.0.0.1]", "[2002:7f00:1::]"),
    *("[fe80::1]", "[fe80::1%25lo]", "[::1%25lo]", "[fec0::1]", "[fd00:ec2::254]", "[ff02::1]", "[2001::1]"),
    *("169.254.169.254", "0xa9fea9fe", "2852039166", "169.254.43518", "10.0.0.1", "10.1", "192.168.0.1"),
    *(
        "172.16.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "192.0.0.192",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
    ),
    *("ada@127.0.0.1", "8.8.8.8@127.0.0.1", "ada:pass@[::1]", "localhost:80@127.0.0.1"),
    *(
        "127%2e0%2e0%2e1",
        "%31%32%37.0.0.1",
        "１２７.０.０.１",
        "127。0。0。1",
        "①②⑦.0.0.1",
        "127.0.0.1%00.example.com",
    ),
    *("localhost", "LOCALHOST", "localhost.", "LocalHost.", "foo.localhost", "ｌocalhost"),
]


@pytest.mark.parametrize("host", ADDRESSES)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_address_inside_is_never_connected_to_however_it_is_written(
    door: Door, inside: Inside, scheme: str, host: str
) -> None:
    with watching() as seen:
        error = await refused(door, f"{scheme}://{host}:{inside.port}/token")
    assert [what for what in seen if what[0] == "socket.connect"] == []
    assert (inside.connections, error.sent) == (0, Sent.NOT_SENT)


@pytest.mark.parametrize(
    "answers",
    [
        *(
            ["127.0.0.1"],
            ["10.0.0.1"],
            ["169.254.169.254"],
            ["::1"],
            ["fd00:ec2::254"],
            ["fe80::1%lo"],
            ["0.0.0.0"],
        ),
        *(["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"], ["2002:7f00:1::"], ["8.8.8.8", "127.0.0.1"]),
        *(["127.0.0.1", "8.8.8.8"], ["2606:4700::1111", "8.8.8.8", "::1"], ["8.8.8.8", "not an address"]),
    ],
    ids=",".join,
)
async def test_a_name_is_refused_if_any_of_its_addresses_is(
    use: Use, inside: Inside, answers: list[str]
) -> None:
    use(Names(evil_example=[answers]))
    door = Door(Reachable(), timeout_seconds=5)
    with watching() as seen:
        error = await refused(door, f"http://evil.example:{inside.port}/token")
    await door.close()
    assert (seen, inside.connections) == ([], 0)
    assert isinstance(error, ProviderUnavailable)
    assert (error.sent, error.provider_code, error.category) == (
        *(Sent.NOT_SENT, "address_refused"),
        Category.PERMANENT,
    )


async def test_a_name_that_changes_its_mind_gains_nothing(use: Use, inside: Inside) -> None:
    """DNS rebinding: the first answer is good, all others lead inside."""
    names = use(Names(evil_example=[["127.0.0.2"], ["127.0.0.1"]]))
    door = Door(OnlyTwo(), timeout_seconds=5)
    url = f"http://evil.example:{inside.port}/token"
    with watching() as seen:
        for _ in range(20):  # over kept connections, and what was resolved before
            await door.send(acme(), HttpRequest(url, {}, b""))
    assert set(inside.peers) == {"::ffff:127.0.0.2"}
    assert {
        what for what in seen if what[0] != "socket.connect"
    } == set()  # nobody else has resolved anything
    assert names.asked == ["evil.example"]
    await door.close()


async def test_a_name_is_asked_for_again_in_time_and_checked_again(
    use: Use, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.outbound.http._DNS_SECONDS", 0)
    inside.answer = inside.answer.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    names = use(Names(evil_example=[["127.0.0.2"], ["127.0.0.1"]]))
    door = Door(OnlyTwo(), timeout_seconds=5)
    url = f"http://evil.example:{inside.port}/token"
    await door.send(acme(), HttpRequest(url, {}, b""))
    await asyncio.sleep(0.01)
    assert (await refused(door, url)).provider_code == "address_refused"
    assert (inside.peers, len(names.asked)) == (["::ffff:127.0.0.2"], 2)
    await door.close()


async def test_what_is_connected_to_is_what_was_checked_even_if_the_answer_changes_behind_it(
    use: Use, inside: Inside
) -> None:
    """The answer is the same list, with other addresses in it once it has been checked."""
    names = Names(evil_example=[["127.0.0.2"]])

    class Liar(Reachable):
        def admits(self, address: str) -> bool:
            for found in names.given:
                found[:] = [_resolved("evil.example", "127.0.0.1", inside.port)]
            return address == "127.0.0.2"

    use(names)
    door = Door(Liar(), timeout_seconds=5)
    error = await refused(door, f"http://evil.example:{inside.port}/token")
    await door.close()
    assert (inside.connections, error.provider_code) == (0, "address_refused")


@pytest.mark.parametrize("status", ["301", "302", "303", "307", "308"])
async def test_a_redirect_leads_nowhere(use: Use, inside: Inside, status: str) -> None:
    """Not even to where we might go."""
    inside.answer = (
        f"HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:{inside.port}/inside\r\nRefresh: 0; url=/x\r\n"
        "Content-Length: 0\r\n\r\n"
    ).encode()
    door = Door(Reachable(loopback=True), timeout_seconds=5)
    answer = await door.send(acme(), HttpRequest(f"http://127.0.0.1:{inside.port}/token", {}, b""))
    await door.close()
    assert (answer.status, len(inside.requests)) == (int(status), 1)


@pytest.mark.parametrize(
    "endpoint",
    [
        *("http://127.0.0.1:{port}/token", "http://[::1]:{port}/token", "https://127.1:{port}/token"),
        *(
            "https://10.0.0.1:{port}/token",
            "https://inside.example:{port}/token",
            "https://2130706433:{port}/",
        ),
    ],
)
async def test_what_an_issuer_publishes_leads_not_inside(use: Use, inside: Inside, endpoint: str) -> None:
    issuer = f"http://localhost:{inside.port}"
    metadata = json.dumps({"issuer": issuer, "token_endpoint": endpoint.format(port=inside.port)}).encode()
    inside.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(metadata), metadata)
    use(Names(localhost=[["127.0.0.2"]], inside_example=[["127.0.0.1"]]))
    endpoints = TokenEndpoints(OnlyTwo(), timeout_seconds=5)
    client = OAuthClient(
        "acme", Provider.model_validate({"name": "acme", "issuer": issuer}), "broker", "secret"
    )
    with pytest.raises(UpstreamError) as error:
        await endpoints.refresh(client, refresh_token="rt")
    await endpoints.close()
    assert (error.value.sent, error.value.provider_code) == (Sent.NOT_SENT, "address_refused")
    assert (set(inside.peers), inside.connections) == ({"::ffff:127.0.0.2"}, 1)


async def test_a_refusal_tells_its_reader_nothing_and_the_security_log_all(
    door: Door, inside: Inside, caplog: pytest.LogCaptureFixture
) -> None:
    error = await refused(door, f"http://127.0.0.1:{inside.port}/token")
    assert not any(character.isdigit() for character in error.detail)
    [line] = [record.getMessage() for record in caplog.records if record.name == "security"]
    assert all(part in line for part in ("address_refused", "127.0.0.1", "acme"))


async def test_what_is_opened_is_reached(inside: Inside) -> None:
    own = _own_address()
    if own is None:
        pytest.skip("this machine has no address but loopback")
    network = (ipaddress.ip_network(own),)
    for reachable, arrives in ((Reachable(), False), (Reachable(network), True)):
        try:
            answered = await status(reachable, f"http://{own}:{inside.port}/")
        except AddressRefused:
            assert not arrives
        else:
            assert (arrives, answered) == (True, 200)


async def test_a_client_without_a_guard_reaches_everything(inside: Inside) -> None:
    assert await status(None, f"http://127.0.0.1:{inside.port}/") == 200


async def status(reachable: Reachable | None, url: str) -> int:
    outbound = Outbound(reachable, connect_seconds=5, pool_seconds=5)
    try:
        async with outbound.request("GET", url, headers={}, body=None) as answer:
            return answer.status
    finally:
        await outbound.close()


def _own_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if address.startswith("127.") else address
