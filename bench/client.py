"""An HTTP/1.1 client that costs as little as Python can: one connection, one request at a time, lengths announced."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length: "
_CLOSE = b"\r\nconnection: close"
_RETRY_AFTER = b"\r\nretry-after: "


class Unreadable(Exception):
    """The answer is none that this client understands."""


class Sender(Protocol):
    """Who is told what became of a request, and of the connection."""

    def answered(self, connection: Connection, status: int, *, retry_after: bool) -> None: ...

    def ended(self, connection: Connection) -> None: ...

    def fail(self, error: Exception) -> None: ...


class Connection(asyncio.Protocol):
    """`due_at` is the time that the request under way had, None while there is none."""

    def __init__(self, sender: Sender) -> None:
        self.due_at: float | None = None
        self.is_open = False
        self.last_answer = b""
        self._sender = sender
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def send(self, request: bytes, due_at: float) -> None:
        assert self._transport is not None
        self.due_at = due_at
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        head = data.find(_END)
        if head < 0:
            self._buffer = data
            return
        try:
            whole = head + len(_END) + _length(data, head)
        except Unreadable as error:
            self._sender.fail(error)
            return
        if len(data) < whole:
            self._buffer = data
            return
        self._buffer = b""
        if data.find(_CLOSE, 0, head) >= 0:
            self.close()
        self.last_answer = data
        self._sender.answered(self, int(data[9:12]), retry_after=data.find(_RETRY_AFTER, 0, head) >= 0)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._sender.ended(self)

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.close()


def _length(data: bytes, head: int) -> int:
    """Of the body. uvicorn writes the names of headers in lower case."""
    begin = data.find(_LENGTH, 0, head)
    if begin < 0:
        if data[9:12] == b"204":
            return 0
        raise Unreadable(f"An answer announces no length: {data[:head]!r}")
    begin += len(_LENGTH)
    return int(data[begin : data.index(b"\r\n", begin)])
