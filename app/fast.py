"""The HTTP/1.1 protocol of the server, with a way to the application's fast lane past what only an application needs: a
scope, a task and an answer in pieces.

A request that is byte for byte one that the lane has answered is not even parsed: between two requests a parser would find
in it what it found then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, cast
from weakref import ref

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.api.lane import BrokerApp
from app.api.passing import ABORT, LOST
from app.api.whole import EXTENSION, lines_of
from app.consumers.consumer import digest_of

_END = b"\r\n\r\n"
_LONGEST = 8192


class FastProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._lane = self.app.lane if isinstance(self.app, BrokerApp) else None
        self._is_answered = False  # the request that is arriving, without the application
        self._may_come_unparsed = (
            self._lane is not None
        )  # nothing is being answered, and a request begins with the next byte
        self._is_at_start = True  # of a request: all of the last one is here
        # The digest of what is being read, where that looks like a request, whole; and of the request that is arriving, if it
        # is that very piece.
        self._piece: bytes | None = None
        self._whole: bytes | None = None
        self._answered_at = 0.0
        self._when_lost: Callable[[], None] | None = None

    @property
    def is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        digest = digest_of(data) if self._is_at_start and self._lane is not None and _is_whole(data) else None
        if digest is not None and self._may_come_unparsed and self._answers_again(digest):
            return
        self._piece, self._whole = digest, None
        super().data_received(data)
        self._may_come_unparsed = self._whole is not None and self._is_answered and not self.flow.write_paused

    def pause_writing(self) -> None:
        self._may_come_unparsed = False
        super().pause_writing()

    def timeout_keep_alive_handler(self) -> None:
        """It is set for the first of several answers, and looks itself how long ago the last one was."""
        left = self._answered_at + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._whole, self._piece, self._is_at_start = self._piece, None, False

    def on_headers_complete(self) -> None:
        # One that was answered just before, in the same piece, has set it since.
        self._unset_keepalive_if_required()
        self._is_answered = self._may_answer_at_once() and self._answer_at_once()
        if not self._is_answered:
            super().on_headers_complete()
            # The cycle has the scope: if that had the cycle too, only the garbage collector would ever end them.
            cycle = ref(self.cycle)
            extensions = {
                EXTENSION: partial(self._write_whole, cycle),
                ABORT: partial(self._abort, cycle),
                LOST: self._tell_when_lost,
            }
            cast(dict[str, Any], self.scope)["extensions"] = extensions

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._when_lost is not None:
            self._when_lost()

    def on_message_complete(self) -> None:
        self._is_at_start = True
        if not self._is_answered:
            super().on_message_complete()

    def _may_answer_at_once(self) -> bool:
        """Whether nothing is being answered before, or has to be done with the connection afterwards."""
        if self._lane is None or self.flow.write_paused:
            return False
        parser = self.parser
        if parser.get_method() != b"GET" or parser.get_http_version() != "1.1":
            return False
        if self.is_answering or self.pipeline:
            return False
        return parser.should_keep_alive() and not parser.should_upgrade()

    def _answer_at_once(self) -> bool:
        assert self._lane is not None
        answer = self._lane.at_once(self.url, self.headers, self.server_state.default_headers, self._whole)
        if answer is None:
            return False
        self._write_at_once(answer)
        return True

    def _answers_again(self, digest: bytes) -> bool:
        assert self._lane is not None
        answer = self._lane.again(digest, self.server_state.default_headers)
        if answer is None:
            return False
        self._write_at_once(answer)
        return True

    def _write_at_once(self, answer: bytes) -> None:
        self.transport.write(answer)
        self._answered_at = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1

    def _tell_when_lost(self, callback: Callable[[], None] | None) -> None:
        """Calls that when the client hangs up, at once where it has already; None: nobody asks any more. Requests on a
        connection are answered one after the other, so there is one at most."""
        if callback is not None and self.transport.is_closing():
            callback()
        else:
            self._when_lost = callback

    def _abort(self, answered: ref[RequestResponseCycle]) -> None:
        """Ends the connection in the middle of an answer, by which the client sees that it is none."""
        cycle = answered()
        assert cycle is not None
        cycle.disconnected = True
        self.transport.abort()

    async def _write_whole(self, answered: ref[RequestResponseCycle], head: bytes, body: bytes) -> None:
        """An answer in one piece, with the fields of the server's own."""
        cycle = answered()
        assert cycle is not None  # it runs the application, which is writing this
        if self.flow.write_paused and not cycle.disconnected:
            await self.flow.drain()
        if cycle.disconnected:
            return
        close = b"" if cycle.keep_alive else b"connection: close\r\n"
        servers = lines_of(self.server_state.default_headers)
        self.transport.write(b"%s%s%s\r\n%s" % (head, servers, close, body))
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()


def _is_whole(data: bytes) -> bool:
    """Whether it is a head and nothing else, if it is the beginning of a request."""
    return len(data) <= _LONGEST and data.startswith(b"GET ") and data.find(_END) == len(data) - len(_END)
