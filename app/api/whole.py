"""Answers that are there as a whole, written in one piece where the server can do that.

ASGI sends the head and the body one after the other, each of which costs a system call and wakes the client.
`app.inbound` offers another way, as an extension of ASGI's scope.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.types import Scope, Send

from app.api import headers

EXTENSION = "broker.whole_answer"
# A status line and fields, each with its line's end, and a body; the server adds its own fields in between (RFC 9112).
WriteWhole = Callable[[bytes, bytes], Awaitable[None]]
Fields = Sequence[tuple[bytes, bytes]]


def lines_of(fields: Fields) -> bytes:
    return b"".join([b"%s: %s\r\n" % field for field in fields])


class Whole:
    """JSON with the status 200 and the headers that every answer has."""

    def __init__(self, base_url: str) -> None:
        self._fields = headers.completed([(b"content-type", b"application/json")], headers.always(base_url))
        self._lines = b"HTTP/1.1 200 OK\r\n" + lines_of(self._fields)

    def head(self, body: bytes, request_id: bytes) -> bytes:
        """All of the head but what the server adds, and the empty line."""
        return b"%scontent-length: %d\r\nx-request-id: %s\r\n" % (self._lines, len(body), request_id)

    async def send(self, scope: Scope, send: Send, body: bytes, request_id: bytes) -> None:
        """Answers with that body."""
        write: WriteWhole | None = scope.get("extensions", {}).get(EXTENSION)
        if write is not None:
            await write(self.head(body, request_id), body)
            return
        own = ((b"content-length", b"%d" % len(body)), (b"x-request-id", request_id))
        await send({"type": "http.response.start", "status": 200, "headers": [*self._fields, *own]})
        await send({"type": "http.response.body", "body": body})
