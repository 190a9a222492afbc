"""More clients than are let in: nobody is dropped, a few at a time are told, and what else there is to do goes on."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable

import pytest

from app import serve
from app.api.lane import BrokerApp
from app.inbound import Limits
from app.sandbox.server import Sandbox
from app.unread import Unread
from tests.broker import ADMIN_KEY, Broker, bring
from tests.sockets import Connection, served

HEAD = f"Host: broker\r\nAuthorization: Bearer {ADMIN_KEY}\r\n\r\n"
ADA = f"GET /tokens/sandbox/ada HTTP/1.1\r\n{HEAD}"
LIVE = "GET /health-check/live HTTP/1.1\r\nHost: broker\r\n\r\n"


async def status_of(connection: Connection, request: str) -> int:
    await connection.send(request)
    return (await connection.answer())[0]


async def test_a_crowd_is_told_and_not_dropped_and_is_let_in_when_there_is_room(
    broker: Broker, sandbox: Sandbox
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    async with served(broker, Limits(connections=8)) as connect:
        inside = [await connect() for _ in range(8)]
        assert [await status_of(each, ADA) for each in inside] == [200] * 8

        async def late() -> list[int]:
            return [await status_of(await connect(), ADA) for _ in range(5)]

        assert await asyncio.gather(*(late() for _ in range(60))) == [[503] * 5] * 60
        assert await status_of(await connect(), LIVE) == 204
        for each in inside:
            each.close()
        async with asyncio.timeout(10):
            while await status_of(await connect(), ADA) != 200:
                await asyncio.sleep(0.1)


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> list[serve.Server]:
    """All that have started."""
    started: list[serve.Server] = []
    startup = serve.Server.startup

    async def noted(self: serve.Server, sockets: list[socket.socket] | None = None) -> None:
        await startup(self, sockets)
        started.append(self)

    monkeypatch.setattr(serve.Server, "startup", noted)
    return started


async def test_as_many_doors_are_open_as_there_is_room_behind_them(
    broker: Broker, servers: list[serve.Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_ROOM_FOR_A_DOOR", 2)
    async with served(broker, Limits(connections=12)) as connect:
        [server] = servers

        async def doors(number: int) -> None:
            async with asyncio.timeout(10):
                while len(server.servers) != number:
                    await asyncio.sleep(0.02)

        await doors(6)
        inside = [await connect() for _ in range(12)]
        assert [await status_of(each, LIVE) for each in inside] == [204] * 12
        await doors(2)
        for each in inside[:8]:
            each.close()
        await doors(4)
        assert await status_of(await connect(), LIVE) == 204


async def test_a_crowd_costs_a_line_of_the_log_a_second_and_each_has_an_id(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.requests")
    async with served(broker, Limits(connections=1)) as connect:
        assert await status_of(await connect(), LIVE) == 204
        ids, count = set(), caplog.text.count("overloaded")
        for _ in range(20):
            late = await connect()
            await late.send(ADA)
            _, fields, body = await late.answer()
            assert fields["x-request-id"].encode() in body and fields["retry-after"] == "1"
            ids.add(fields["x-request-id"])
    assert len(ids) == 20
    assert 1 <= caplog.text.count("overloaded") - count <= 10


@pytest.mark.parametrize("name", ["mine", "m" * 64])
async def test_a_refusal_with_the_callers_own_id_is_whole(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whatever its length, of a crowd as of a load."""
    named = LIVE.replace("health-check/live", "nowhere").replace(
        "\r\n\r\n", f"\r\nX-Request-ID: {name}\r\n\r\n"
    )

    async def refused(connection: Connection) -> str:
        await connection.send(named)
        status, fields, body = await connection.answer()
        assert (status, fields["x-request-id"], json.loads(body)["request_id"]) == (503, name, name)
        return str(json.loads(body)["detail"])

    async with served(broker, Limits(connections=1)) as connect:
        inside = await connect()
        assert await status_of(inside, LIVE) == 204
        assert "connected" in await refused(await connect())
        monkeypatch.setattr(Unread, "waited_seconds", 0.6)
        await asyncio.sleep(0.5)
        assert "more to do" in await refused(inside)


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [(ADA + ADA, [503]), (ADA + "\1garbage\r\n\r\n", [503]), (ADA + LIVE, [503]), (LIVE + ADA, [204])],
    ids=["another", "garbage", "health behind it", "health before it"],
)
async def test_whoever_is_refused_for_the_crowd_is_answered_once(
    broker: Broker, caplog: pytest.LogCaptureFixture, sent: str, statuses: list[int]
) -> None:
    async with served(broker, Limits(connections=1)) as connect:
        assert await status_of(await connect(), LIVE) == 204
        late = await connect()
        await late.send(sent)
        received = await late.all()
    assert [int(each[:3]) for each in received.decode().split("HTTP/1.1 ")[1:]] == statuses
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_door_that_cannot_be_opened_is_tried_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without files to open; who is inside is served meanwhile."""
    open_door, tried = serve.Server._open_door, 0

    async def without_files(self: serve.Server, bound: socket.socket) -> None:
        nonlocal tried
        tried += 1
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(serve.Server, "_open_door", without_files)
    async with served(broker, Limits()) as connect:
        inside = await connect()
        for _ in range(4):
            assert await status_of(inside, LIVE) == 204
            await asyncio.sleep(0.1)
        assert tried > 2
        monkeypatch.setattr(serve.Server, "_open_door", open_door)
        await asyncio.sleep(0.3)
        assert await status_of(await connect(), LIVE) == 204


class Later(Unread):
    """Nothing is read before it is let."""

    def may_be_read(self, later: Callable[[], None]) -> bool:
        self._waiting.append((0.0, later))
        return False


@pytest.fixture
def later(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    app = broker.app
    assert isinstance(app, BrokerApp) and app.load is not None
    monkeypatch.setattr(app.load, "unread", Later())


@pytest.mark.usefixtures("later")
async def test_whoever_has_said_all_and_hung_up_halfway_is_answered(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    for _ in range(3):
        await broker.token("sandbox/ada")
    async with served(broker, Limits()) as connect:
        connection = await connect()
        await connection.send(ADA)
        await asyncio.sleep(0.05)
        connection.say_no_more()
        assert b"HTTP/1.1 200" in await connection.all()


@pytest.mark.usefixtures("later")
async def test_a_server_that_ends_answers_what_is_here(broker: Broker, servers: list[serve.Server]) -> None:
    async with served(broker, Limits()) as connect:
        connection = await connect()
        await connection.send(LIVE)
        await asyncio.sleep(0.05)
        servers[0].should_exit = True
        assert b"HTTP/1.1 204" in await connection.all()


@pytest.mark.usefixtures("later")
async def test_a_head_that_drips_is_cut_off_though_nobody_reads_it(broker: Broker) -> None:
    async with served(broker, Limits(head_seconds=0.5)) as connect:
        connection = await connect()
        await connection.send("GET / HTTP/1.1\r\nX-Slow: ")
        drip = asyncio.create_task(connection.drip())
        assert b"HTTP/1.1 408" in await connection.all()
        drip.cancel()


async def test_whoever_waits_for_one_of_the_next_turns_is_answered(
    broker: Broker, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request a turn; with more of the request to come while it waits, and a client that has gone."""
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    app = broker.app
    assert isinstance(app, BrokerApp) and app.load is not None
    monkeypatch.setattr(app.load, "unread", Unread(at_once=1))
    put = f"PUT /grants/sandbox/bob HTTP/1.1\r\nContent-Type: application/json\r\n{HEAD}"
    body = '{"access_token": "a", "note": "%s"}' % ("x" * 300_000)
    put = put.replace("\r\n\r\n", f"\r\nContent-Length: {len(body)}\r\n\r\n")
    async with served(broker, Limits()) as connect:
        clients, gone = [await connect() for _ in range(40)], [await connect() for _ in range(10)]
        await asyncio.gather(*(each.send(ADA, LIVE) for each in (*clients, *gone)))
        for each in gone:
            each.close()
        large = await connect()
        sending = asyncio.create_task(large.send(put, body))
        for each in clients:
            assert (await each.answer())[0] == 200
            assert (await each.answer())[0] == 204
        await sending
        assert (await large.answer())[0] == 422


async def test_who_has_waited_for_long_makes_a_load(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the event loop itself is never late."""
    app = broker.app
    assert isinstance(app, BrokerApp) and app.load is not None
    assert (await broker.http.get("/tokens/sandbox/bob", headers={"Authorization": ""})).status_code == 401
    monkeypatch.setattr(Unread, "waited_seconds", 0.6)
    await asyncio.sleep(0.5)
    refused = await broker.http.get("/tokens/sandbox/bob", headers={"Authorization": ""})
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
