"""Both fakes behind a real socket: what cannot be had in process is the connection that breaks or says nothing.

async with CalendarServer.running(google=google, graph=graph) as server:
    server.google_url, server.graph_url     # what a provider's `api.base_url` would be
    await server.deliver()                  # the notifications that are due, as POSTs; their statuses
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self
from urllib.request import Request, urlopen

import aiohttp
from aiohttp import web

from app.embedded_host import free_port
from tests.calendars.answers import Answer, Delivery, Unanswered
from tests.calendars.google import GoogleCalendars
from tests.calendars.graph import GraphCalendars

_GRAPH = "/v1.0"
Meanwhile = Callable[[str, str], Awaitable[None]]


class CalendarServer:
    """`base` is a path that both APIs are below, as behind a gateway; the fakes do not see it. `meanwhile` is awaited, with the
    method and the path, when an answer is made and has not left yet."""

    def __init__(self, google: GoogleCalendars, graph: GraphCalendars, *, port: int, base: str) -> None:
        self.google = google
        self.graph = graph
        self.google_url = f"http://127.0.0.1:{port}{base}"
        self.graph_url = f"{self.google_url}{_GRAPH}"
        self._port = port
        self._base = base
        self._closing = asyncio.Event()
        self.meanwhile: Meanwhile | None = None

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        *,
        google: GoogleCalendars | None = None,
        graph: GraphCalendars | None = None,
        port: int | None = None,
        base: str = "",
    ) -> AsyncIterator[Self]:
        """On a free loopback port. Graph's links lead here, and it asks notification URLs whether they are meant."""
        server = cls(
            google or GoogleCalendars(), graph or GraphCalendars(), port=port or free_port(), base=base
        )
        server.graph.base_url = server.graph_url
        server.graph.validate = server.graph.validate or posted
        runner = web.ServerRunner(web.Server(server._answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", server._port).start()
        try:
            yield server
        finally:
            server._closing.set()
            await runner.cleanup()

    async def deliver(self) -> list[int]:
        """Everything that is due, one after the other; the answers' statuses. Raises aiohttp.ClientError."""
        due = [*self.google.channels.take_due(), *self.graph.subscriptions.take_due()]
        async with aiohttp.ClientSession() as http:
            return [await _delivered(http, delivery) for delivery in due]

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path.removeprefix(self._base)
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        fake = self.graph if path.startswith(f"{_GRAPH}/") else self.google
        try:
            status, fields, content = await self._answered(
                fake, request.method, path, dict(request.query), headers, body
            )
        except Unanswered as unanswered:
            if unanswered.hangs:
                await self._closing.wait()
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if self.meanwhile is not None:
            await self.meanwhile(request.method, path)
        return web.Response(status=status, headers=fields, body=content)

    async def _answered(self, fake: GoogleCalendars | GraphCalendars, *asked: Any) -> Answer:
        if asked[1] == f"{_GRAPH}/subscriptions":
            # While Graph waits for the notification URL's answer, that URL may well be in this loop.
            return await asyncio.to_thread(fake.answer, *asked)
        return fake.answer(*asked)


def posted(url: str) -> Answer:
    """POSTs nothing to it and answers what comes. Raises OSError."""
    with urlopen(Request(url, data=b"", headers={"Content-Type": "text/plain"}), timeout=10) as answer:
        return answer.status, {"Content-Type": answer.headers["Content-Type"]}, answer.read()


async def _delivered(http: aiohttp.ClientSession, delivery: Delivery) -> int:
    async with http.post(delivery.address, headers=delivery.headers, data=delivery.body) as answer:
        return answer.status
