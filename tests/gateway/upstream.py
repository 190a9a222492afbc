"""An API behind a real socket, which keeps what it was asked and answers as it is told to.

async with Upstream.running() as upstream:
    upstream.url                     what a provider's `api.base_url` would be
    upstream.answers = [unwell, ...] one after the other; the last one stays
    upstream.seen                    each request, raw
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from aiohttp import web

from tests.broker import free_port

BASE = "/api/v1"


@dataclass(frozen=True)
class Seen:
    """A request as it came over the wire."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Answering = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Upstream:
    """`tokens`: those that are let in; None: all. `reads`: whether bodies are read before anything is answered."""

    def __init__(self, port: int, base: str) -> None:
        self.url = f"http://127.0.0.1:{port}{base}"
        self.port = port
        self.seen: list[Seen] = []
        self.answers: list[Answering] = [hello]
        self.tokens: Container[str] | None = None
        self.reads = True
        self.hung_up = 0

    @classmethod
    @asynccontextmanager
    async def running(cls, base: str = BASE) -> AsyncIterator[Self]:
        upstream = cls(free_port(), base)
        runner = web.ServerRunner(
            web.Server(upstream._answer, handler_cancellation=True), shutdown_timeout=0.2
        )
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", upstream.port).start()
        try:
            yield upstream
        finally:
            await runner.cleanup()

    @property
    def targets(self) -> list[str]:
        return [seen.target for seen in self.seen]

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): ", ".join(request.headers.getall(name)) for name in request.headers}
        body = await request.read() if self.reads else b""
        self.seen.append(Seen(request.method, request.raw_path, headers, body))
        if self.tokens is not None and headers.get("authorization", "")[7:] not in self.tokens:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        try:
            return await answer(request)
        except asyncio.CancelledError:
            self.hung_up += 1
            raise


async def hello(_request: web.BaseRequest) -> web.StreamResponse:
    return web.json_response({"hello": "world"})


def status(code: int, text: str = "", **headers: str) -> Answering:
    """Answers so; `retry_after="1"` is the header Retry-After."""

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=code, text=text or None, headers=fields)

    return answer


def body(content: bytes, code: int = 200, **headers: str) -> Answering:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=code, body=content, headers=fields)

    return answer


async def reset(request: web.BaseRequest) -> web.StreamResponse:
    """The connection ends without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def silence(_request: web.BaseRequest) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


def late(seconds: float) -> Answering:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.json_response({})

    return answer


def pieces(number: int, size: int, *, pause: float = 0, announced: bool = False) -> Answering:
    """So many pieces of that size."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        if announced:
            response.content_length = number * size
        await response.prepare(request)
        piece = bytes(size)
        for _ in range(number):
            await response.write(piece)
            if pause:
                await asyncio.sleep(pause)
        await response.write_eof()
        return response

    return answer


def breaking_off(after: int, *, announced: int | None = None) -> Answering:
    """An answer that ends after so many bytes, in the middle."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        if announced is not None:
            response.content_length = announced
        await response.prepare(request)
        await response.write(bytes(after))
        await asyncio.sleep(0.05)
        assert request.transport is not None
        request.transport.abort()
        return response

    return answer
