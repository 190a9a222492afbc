"""An API that answers byte for byte what it is told to: what no library would send.

async with Raw.running() as raw:
    raw.answer = b"HTTP/1.1 200 OK..."   to whatever is asked
    raw.goes_on.clear()                  a chunked answer: what stands behind `MARK` waits for `raw.goes_on.set()`
    raw.seen                             each request's head
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

MARK = b"<and then>"


class Raw:
    def __init__(self) -> None:
        self.url = ""
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.seen: list[bytes] = []
        self.goes_on = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[Self]:
        raw = cls()
        server = await asyncio.start_server(raw._serve, "127.0.0.1", 0)
        raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api"
        try:
            yield raw
        finally:
            raw.goes_on.set()
            server.close()
            for writer in raw._writers:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request of a connection."""
        self._writers.add(writer)
        try:
            self.seen.append(await reader.readuntil(b"\r\n\r\n"))
            first, _, rest = self.answer.partition(MARK)
            writer.write(first)
            await writer.drain()
            if rest:
                await self.goes_on.wait()
                writer.write(rest)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
