"""Several servers in one URL, of which one takes writes: whoever hangs or is gone is passed over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg
import pytest

from app.clock import SystemClock
from app.db import Database
from app.listener import Listener
from app.outages import DatabaseUnavailable
from app.servers import Servers
from tests.broker import free_port
from tests.postgres import database
from tests.stories.test_operations import Cable


def over(url: str, *ports: int) -> str:
    """The URL with these ports' servers in place of its own."""
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{login}@{','.join(f'127.0.0.1:{port}' for port in ports)}").geturl()


def port_of(url: str) -> int:
    return urlsplit(url).port or 0


class Silent:
    """A server that takes connections and says nothing; `calls` counts them."""

    def __init__(self) -> None:
        self.calls = 0
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[Silent]:
        silent = cls()
        server = await asyncio.start_server(silent._take, "127.0.0.1", 0)
        silent.port = server.sockets[0].getsockname()[1]
        try:
            yield silent
        finally:
            server.close()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        await reader.read()
        writer.close()


@asynccontextmanager
async def read_only(url: str) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """The database takes no writes, as a standby, until the block calls what it is given."""
    async with database(url) as connection:
        name = urlsplit(url).path[1:]
        await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        yield lambda: connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")


async def test_a_server_that_is_gone_is_passed_over(database_url: str) -> None:
    servers = Servers(over(database_url, free_port(), port_of(database_url)))
    connection = await servers.connect(command_timeout=5)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


async def test_a_server_that_hangs_is_passed_over_and_the_one_that_answered_is_asked_first_from_then_on(
    database_url: str,
) -> None:
    async with Silent.running() as silent:
        servers = Servers(over(database_url, silent.port, port_of(database_url)))
        await (await servers.connect(command_timeout=5)).close()
        calls = silent.calls
        await (await servers.connect(command_timeout=5)).close()
        assert calls > 0
        assert silent.calls == calls


async def test_where_no_server_takes_writes_what_the_last_one_said_is_raised(database_url: str) -> None:
    async with read_only(database_url):
        with pytest.raises(asyncpg.TargetServerAttributeNotMatched):
            await Servers(over(database_url, free_port(), port_of(database_url))).connect(command_timeout=5)
        db = Database(database_url)
        with pytest.raises(DatabaseUnavailable):
            await db.ping()
        await db.close()


async def test_a_refused_password_is_not_tried_at_the_next_server(database_url: str) -> None:
    wrong = database_url.replace(urlsplit(database_url).password or "", "wrong")
    async with Silent.running() as silent:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await Servers(over(wrong, port_of(database_url), silent.port)).connect(command_timeout=5)
        assert silent.calls == 0


async def test_a_listener_without_a_primary_goes_on_looking_for_one(database_url: str) -> None:
    async with read_only(database_url) as promote:
        listener = Listener(database_url, SystemClock())
        listener.start()
        try:
            await asyncio.sleep(0.3)
            assert not listener.is_listening
            await promote()
            async with asyncio.timeout(10):
                while not listener.is_listening:
                    await asyncio.sleep(0.02)
        finally:
            await listener.stop()


async def test_when_a_server_hangs_the_connections_to_it_are_given_up_for_the_next_one(
    database_url: str,
) -> None:
    async with Cable.to(database_url) as cable:
        db = Database(over(database_url, port_of(cable.url), port_of(database_url)))
        await asyncio.gather(*(db.ping() for _ in range(5)))  # all by the cable
        cable.hang()
        await db.ping()  # within the same call
        await asyncio.gather(*(db.ping() for _ in range(5)))
        await db.close()
