"""The HTTP/1.1 protocol of the server, with what uvicorn's leaves open: how long a request may take to arrive, how large
its head may be, how long an answer waits for a client that reads none of it, how many may be connected, and that whatever
is refused down here is a problem as well.

    connected, or answered --- first byte ---> head --- head is complete ---> body --- body is complete --->
                 keep-alive limit        head limit                   body limit

A timer is set only for what has not arrived whole, or what nobody takes, so an ordinary request costs none.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import sys
import termios
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.server import ServerState

from app.api import headers
from app.api.middleware import BODY_SECONDS, is_passed_on, refusal
from app.errors import BrokerError, HeadersTooLarge, InvalidRequest, Overloaded, RequestTooSlow
from app.fast import FastProtocol

_GRACE_SECONDS = 2.0  # so that the application, which waits for the body, says first that it took too long
_LINGER_SECONDS = (
    1.0  # what a client is still sending is taken, or it would be reset before it reads our answer
)
_SPARE = 64  # connections over the limit that are told so; further ones are dropped
_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux: tcp(7)
_HEALTH = "/health-check"  # a replica that is crowded is not ill, and must not be ended for it


@dataclass(frozen=True)
class Limits:
    """`head_bytes` ends a head that is still arriving; the application's own limit for a whole one is lower.
    `untaken_seconds` is how long a client may take nothing of what was written to it; a slow one takes something."""

    head_seconds: float = 10.0
    body_seconds: float = BODY_SECONDS + _GRACE_SECONDS
    untaken_seconds: float = 20.0
    head_bytes: int = 64 * 1024
    connections: int = 4096


class Phase(StrEnum):
    BETWEEN = "between"  # requests: nothing of the next one is here
    HEAD = "head"
    BODY = "body"


class BoundedProtocol(FastProtocol):
    """One connection. `limits` is of the class, since uvicorn makes the instances."""

    limits = Limits()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._phase = Phase.BETWEEN
        self._number = 0  # of the request that is arriving
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timed: tuple[int, Phase] | None = None
        self._untaken_timer: asyncio.TimerHandle | None = None
        self._untaken_bytes = 0
        self._has_said_anything = False
        self._is_refused = False
        self._body_bytes = self._timed_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections + _SPARE:
            transport.abort()
            return
        if len(self.connections) > self.limits.connections:
            self.app = self._crowded
        if _USER_TIMEOUT is not None:
            milliseconds = int(self.limits.untaken_seconds * 1000)
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, milliseconds)
        self._set_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_untaken_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._set_untaken_timer()

    def resume_writing(self) -> None:
        self._stop_untaken_timer()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        self._has_said_anything = True
        super().data_received(data)
        if self._is_refused or self.transport.is_closing():
            return
        if self._phase is Phase.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.head_bytes:
                self._refuse(
                    HeadersTooLarge("The request's address and headers are larger than this service takes.")
                )
                return
        self._set_timer()

    def on_message_begin(self) -> None:
        self._phase, self._number, self._head_bytes = Phase.HEAD, self._number + 1, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # What comes behind a chunked body (RFC 9110 section 6.5.1) is no header: a proxy in front has not seen it.
        if self._phase is Phase.HEAD:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._phase = Phase.BODY

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._phase = Phase.BETWEEN
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(InvalidRequest("The request cannot be read: it is malformed."))

    def _unsupported_upgrade_warning(self) -> None:
        """What follows is of a protocol that is not spoken here: it must not be read as a request."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def _set_timer(self) -> None:
        """For what is awaited now, unless it has one already."""
        timed = (self._number, self._phase)
        if self._phase is Phase.BETWEEN and (self.is_answering or self.timeout_keep_alive_task is not None):
            self._stop_timer()
        elif timed != self._timed:
            self._stop_timer()
            seconds = self.limits.body_seconds if self._phase is Phase.BODY else self.limits.head_seconds
            self._timer, self._timed = self.loop.call_later(seconds, self._time_is_over), timed

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._timed = None

    def _time_is_over(self) -> None:
        self._timer = self._timed = None
        if self.transport.is_closing():
            return
        waits_for_us = self.flow.read_paused or (self._phase is Phase.HEAD and self.is_answering)
        if waits_for_us or self._is_moving():  # the client is not to blame: it is we who do not read on
            self._set_timer()
        elif self._has_said_anything and self._phase is not Phase.BETWEEN:
            self._refuse(RequestTooSlow())
        else:
            self.transport.close()

    def _is_moving(self) -> bool:
        """Whether more has come, since the last look, of a body that is passed on: that may take as long as it takes."""
        more = self._body_bytes > self._timed_bytes
        self._timed_bytes = self._body_bytes
        return more and self._phase is Phase.BODY and is_passed_on(cast(Scope, self.scope))

    def _set_untaken_timer(self) -> None:
        self._untaken_bytes = _untaken(self.transport)
        self._untaken_timer = self.loop.call_later(self.limits.untaken_seconds, self._look_whether_taken)

    def _stop_untaken_timer(self) -> None:
        if self._untaken_timer is not None:
            self._untaken_timer.cancel()
        self._untaken_timer = None

    def _look_whether_taken(self) -> None:
        """A transport that is closing would wait for its buffer without an end, so it is aborted as well."""
        if _untaken(self.transport) < self._untaken_bytes:
            self._set_untaken_timer()
        else:
            self.transport.abort()

    def _refuse(self, error: BrokerError) -> None:
        """Answers the request that is arriving, where nothing else is being answered, and ends the connection."""
        cycle = self.cycle
        if self._phase is Phase.BODY:  # the application may be waiting for the rest of it
            is_our_turn = self.is_answering and not cycle.response_started and not self.pipeline
        else:
            is_our_turn = not self.is_answering
        if not is_our_turn:
            self.transport.close()
            return
        if self._phase is Phase.BODY:
            cycle.disconnected = True
            cycle.message_event.set()
        status, fields, body = refusal(cast(FastAPI, self.config.app), error)
        head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
        head += [name + b": " + value for name, value in fields]
        self.transport.write(b"\r\n".join([*head, b"connection: close", b"", body]))
        self.transport.write_eof()
        self._is_refused = True
        self._stop_timer()
        self._timer = self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    async def _crowded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application while too many are connected."""
        if scope["path"].startswith(_HEALTH):
            await self._application(scope, receive, send)
            return
        error = Overloaded("Too many clients are connected at the moment. Try again shortly.", retry_after=1)
        status, fields, body = refusal(cast(FastAPI, self.config.app), error)
        fields = headers.completed(fields, ((b"connection", b"close"),))
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": body})


def _untaken(transport: asyncio.Transport) -> int:
    """Bytes that the client has not taken: ours, and the system's where it tells, which takes ours in large pieces only."""
    sent = bytes(4)
    with suppress(OSError):
        sent = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, sent)
    return transport.get_write_buffer_size() + int.from_bytes(sent, sys.byteorder)


def protocol(limits: Limits) -> type[BoundedProtocol]:
    """The protocol under other limits."""
    return type("BoundedProtocol", (BoundedProtocol,), {"limits": limits})
