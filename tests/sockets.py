"""Clients with a socket of their own, and the server that they talk to, in this process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from app.inbound import Limits
from app.serve import Server, configuration
from tests.broker import Broker


class Connection:
    """A client that writes what it likes, when it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *parts: str | bytes, pause: float = 0.0) -> None:
        """As far as the server lets it."""
        with suppress(ConnectionError):
            for part in parts:
                self._writer.write(part if isinstance(part, bytes) else part.encode())
                await self._writer.drain()
                await asyncio.sleep(pause)

    async def drip(self, part: str = "x") -> None:
        """A byte or two now and then, for ever."""
        while not self._writer.is_closing():
            await self.send(part, pause=0.05)

    async def all(self) -> bytes:
        """What came until the server closed."""
        received = b""
        async with asyncio.timeout(15):
            with suppress(ConnectionError):
                while part := await self._reader.read(65536):
                    received += part
        return received

    async def answer(self, *, pause: float = 0.0) -> tuple[int, dict[str, str], bytes]:
        """The next answer, and nothing after it; `pause` after each 64 KiB."""
        async with asyncio.timeout(15):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:-2])
            length, body = int(fields.get("content-length", "0")), b""
            while len(body) < length:
                body += await self._reader.readexactly(min(65536, length - len(body)))
                await asyncio.sleep(pause)
        return int(head.split(" ")[1]), fields, body

    def say_no_more(self) -> None:
        self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()


Connect = Callable[[], Awaitable[Connection]]


@asynccontextmanager
async def served(broker: Broker, limits: Limits, *, window: int | None = None) -> AsyncIterator[Connect]:
    """`window`: the bytes that the system takes for each client that does not read."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(configuration(broker.app, limits, drain_seconds=1))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    ready = asyncio.create_task(server.ready.wait())
    await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
    if not ready.done():
        ready.cancel()
        await serving
    opened: list[Connection] = []

    async def connect() -> Connection:
        client = socket.socket()
        if window is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, listener.getsockname())
        opened.append(Connection(*await asyncio.open_connection(sock=client, limit=4096)))
        return opened[-1]

    try:
        yield connect
    finally:
        for connection in opened:
            connection.close()
        server.should_exit = True
        await serving
