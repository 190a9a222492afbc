"""Connections to providers: what is kept between two requests, and how long who wants one waits."""

from __future__ import annotations

import asyncio
import select
from typing import Any

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace


class NoConnectionFree(aiohttp.ClientError):
    """All that there may be to that host are in use, by ourselves: it says nothing of the host."""


class Connector(aiohttp.TCPConnector):
    """As the library's, which has no public way for either of these; tests guard the names.

    A connection on which anything has come since its last answer is closed: the library would take that for the answer to
    the next request, which may be another user's.
    """

    def __init__(self, *, pool_seconds: float, **settings: Any) -> None:
        super().__init__(**settings)
        self._pool_seconds = pool_seconds

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            if not _has_heard(connection):
                return connection
            connection.close()
        return None

    async def _wait_for_available_connection(self, key: ConnectionKey, traces: list[Trace]) -> None:
        """Raises NoConnectionFree."""
        try:
            async with asyncio.timeout(self._pool_seconds):
                await super()._wait_for_available_connection(key, traces)
        except TimeoutError:
            raise NoConnectionFree from None


def _has_heard(connection: Connection) -> bool:
    """Whether anything has come, or waits in the socket to be read: an end as well."""
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None or protocol.should_close:
        return True
    waiting = select.poll()
    waiting.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(waiting.poll(0))
