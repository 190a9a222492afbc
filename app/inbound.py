"""The HTTP/1.1 protocol of the server, with what uvicorn's leaves open: how long a request may take to arrive, how large
its head may be, how long an answer waits for a client that reads none of it, how many may be connected, and that whatever
is refused down here is a problem as well.

    connected, or answered --- first byte ---> head --- head is complete ---> body --- body is complete --->
                 keep-alive limit        head limit                   body limit

A timer is set only for what has not arrived whole, or what nobody takes, so an ordinary request costs none.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI
from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.server import ServerState

from app.api.middleware import BODY_SECONDS, is_passed_on, refusal
from app.api.whole import Fields, lines_of
from app.errors import BrokerError, HeadersTooLarge, InvalidRequest, RequestTooSlow
from app.queued import QueuedProtocol
from app.untaken import Untaken

_GRACE_SECONDS = 2.0  # so that the application, which waits for the body, says first that it took too long
# What a client is still sending is taken, or it would be reset before it reads our answer.
_LINGER_SECONDS = 1.0
_SPARE = 64  # connections over the limit that are told so; further ones are dropped
_HEALTH = b"/health-check"  # a replica that is crowded is not ill, and must not be ended for it


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


class BoundedProtocol(QueuedProtocol):
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
        self._untaken: Untaken | None = None  # once it is connected
        self._has_said_anything = self._is_refused = self._is_crowded = False
        self._body_bytes = self._timed_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections + _SPARE:
            transport.abort()
            return
        self._is_crowded = len(self.connections) > self.limits.connections
        self._may_come_unparsed = self._may_come_unparsed and not self._is_crowded
        self._untaken = Untaken(transport, self.loop, self.limits.untaken_seconds)
        self._set_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._untaken is not None:
            self._untaken.stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        assert self._untaken is not None
        self._untaken.watch()

    def resume_writing(self) -> None:
        assert self._untaken is not None
        self._untaken.stop()
        super().resume_writing()

    def _read(self, data: bytes) -> None:
        if self._is_refused:
            return
        self._has_said_anything = True
        super()._read(data)
        if self._may_come_unparsed and self._timer is None:
            return  # it was just answered, and the timer of idle connections is set
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
        if self._is_refused:  # it stands behind that which was
            self._is_answered = True
        elif self._is_crowded and not self.url.startswith(_HEALTH):
            self._is_answered = True
            self._refuse_for_the_crowd()
        else:
            super().on_headers_complete()
        self._phase = Phase.BODY

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if not self._is_answered:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._phase = Phase.BETWEEN
        super().on_message_complete()
        if self._is_refused:  # and nothing of it is still to come
            self.transport.close()

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
        awaited = (self._number, self._phase)
        self._read_on()
        if self.transport.is_closing():
            return
        if awaited != (self._number, self._phase):  # it was here, and we had not read it
            self._set_timer()
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

    def _refuse(self, error: BrokerError) -> None:
        """Answers the request that is arriving, where nothing else is being answered, and ends the connection."""
        if self._is_refused:
            return
        if self._is_our_turn():
            self._end_with(*refusal(cast(FastAPI, self.config.app), error))
        else:
            self.transport.close()

    def _refuse_for_the_crowd(self) -> None:
        if self._load is None:
            self.transport.close()
        elif self.is_answering:  # the question how we are: that answer is the last one
            self.cycle.keep_alive = False
        else:
            self._end_with(*self._load.crowded.told(dict(self.headers).get(b"x-request-id")))

    def _is_our_turn(self) -> bool:
        if self._phase is not Phase.BODY:
            return not self.is_answering
        # The application may be waiting for the rest of it.
        return self.is_answering and not self.cycle.response_started and not self.pipeline

    def _end_with(self, status: int, fields: Fields, body: bytes) -> None:
        if self._phase is Phase.BODY:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
        self.transport.write(b"%s%sconnection: close\r\n\r\n%s" % (line, lines_of(fields), body))
        self.transport.write_eof()
        self._is_refused = True
        self._stop_timer()
        self._timer = self.loop.call_later(_LINGER_SECONDS, self.transport.close)


def protocol(limits: Limits) -> type[BoundedProtocol]:
    """The protocol under other limits."""
    return type("BoundedProtocol", (BoundedProtocol,), {"limits": limits})
