"""How long an answer waits for a client that takes none of it."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import sys
import termios
from contextlib import suppress

_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux: tcp(7)


class Untaken:
    """Of one connection. Who takes something within `seconds`, however little, is given as long again."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._transport = transport
        self._loop = loop
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._bytes = 0
        if _USER_TIMEOUT is not None:
            option = (socket.IPPROTO_TCP, _USER_TIMEOUT, int(seconds * 1000))
            transport.get_extra_info("socket").setsockopt(*option)

    def watch(self) -> None:
        """From now on."""
        self._bytes = self._untaken()
        self._timer = self._loop.call_later(self._seconds, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    def _look(self) -> None:
        """A transport that is closing would wait for its buffer without an end, so it is aborted as well."""
        if self._untaken() < self._bytes:
            self.watch()
        else:
            self._transport.abort()

    def _untaken(self) -> int:
        """Bytes that the client has not taken: ours, and the system's where it tells, which takes ours in large pieces only."""
        sent = bytes(4)
        with suppress(OSError):
            sent = fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, sent)
        return self._transport.get_write_buffer_size() + int.from_bytes(sent, sys.byteorder)
