"""The HTTP/1.1 protocol of the server, as one of thousands of connections: what arrives is read when its turn comes."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from app.api.lane import BrokerApp
from app.api.load import Load
from app.fast import FastProtocol
from app.telemetry import logger

log = logger(__name__)


class QueuedProtocol(FastProtocol):
    """One connection."""

    _load: Load | None = None
    _unread = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._load = self.app.load if isinstance(self.app, BrokerApp) else None

    def data_received(self, data: bytes) -> None:
        if self._unread:
            self._unread += data
            if len(self._unread) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
        elif self._load is None or self._load.unread.may_be_read(self._read_on):
            self._read(data)
        else:
            self._unread = data

    def eof_received(self) -> None:
        """Who says no more may still be waiting for an answer: what he said is read before the connection is closed."""
        self._read_on()
        super().eof_received()

    def shutdown(self) -> None:
        """What is here is answered first."""
        self._read_on()
        super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        if self._unread:  # there is another request
            self.timeout_keep_alive_task = None
        else:
            super().timeout_keep_alive_handler()

    def _read_on(self) -> None:
        data, self._unread = self._unread, b""
        if not data or self.transport.is_closing():
            return
        if len(data) > HIGH_WATER_LIMIT:
            self.flow.resume_reading()
        try:
            self._read(data)
        except Exception as error:  # the event loop, where it reads itself, does the same
            log.error("request.unreadable", exc_info=error)
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unread = b""
        super().connection_lost(exc)

    def _read(self, data: bytes) -> None:
        super().data_received(data)
