"""An API that says whose token asks, how often it was asked what, and waits where it is told to. Every user's answers have the
same entity tag, so that one user's would pass for another's.

In a test's own process it is `running()`; `python -m tests.gateway.answering --port 8092` is it as a process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

from aiohttp import web

from app.embedded_host import free_port

_ENTRY = """
name: answering
token_url: {url}/token
scopes: {{default: [basic]}}
refresh_token: {{rotation: never}}
api: {{base_url: "{url}/api"}}
"""


class Answering:
    """`GET /api/...` answers `{"user", "version", "path", "said"}`; any other method makes it the user's next version. `ada.2` is the
    second account that ada has connected."""

    def __init__(self) -> None:
        self.url = ""
        self.version = 0
        self.written: Counter[str] = Counter()  # by user, whatever his account
        self.asked: Counter[str] = Counter()  # by method, user and path with the query
        self.confirmed = 0  # answers of 304
        self.tag: str | None = '"same-for-all"'
        self.headers: dict[str, str] = {}
        self.status = 200
        self.body: bytes | None = None
        self.kind = "application/json"
        self.last: Mapping[str, str] = {}
        self.refused: set[str] = set()  # users whose token is not let in
        self.ended = 0  # requests whose client hung up
        self._gate = asyncio.Event()
        self._gate.set()

    @classmethod
    @asynccontextmanager
    async def running(cls, *, port: int | None = None) -> AsyncIterator[Self]:
        api, port = cls(), port or free_port()
        api.url = f"http://127.0.0.1:{port}"
        runner = web.ServerRunner(web.Server(api._answer, handler_cancellation=True))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
        try:
            yield api
        finally:
            api.open()
            await runner.cleanup()

    @property
    def entry(self) -> str:
        """Its catalogue file."""
        return _ENTRY.format(url=self.url)

    def shut(self) -> None:
        """From now on nobody is answered."""
        self._gate.clear()

    def open(self) -> None:
        self._gate.set()

    async def arrived(self, number: int) -> None:
        """Until so many requests have come in all."""
        async with asyncio.timeout(10):
            while self.asked.total() < number:
                await asyncio.sleep(0.002)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        user = request.headers.get("Authorization", "").removeprefix("Bearer token-of-")
        self.asked[f"{request.method} {user} {request.path_qs.removeprefix('/api')}"] += 1
        self.last = request.headers
        if request.method not in {"GET", "HEAD"}:
            self.written[user.partition(".")[0]] += 1
        version = self.version + self.written[user.partition(".")[0]]
        tag = None if self.tag is None else f'{self.tag[:-1]}-{version}"'
        try:
            await self._gate.wait()
        except asyncio.CancelledError:
            self.ended += 1
            raise
        if user in self.refused:
            return web.Response(status=401)
        given = {"Content-Type": self.kind, **({} if tag is None else {"ETag": tag}), **self.headers}
        if tag is not None and request.headers.get("If-None-Match") == tag:
            self.confirmed += 1
            return web.Response(status=304, headers=given)
        body = self.body
        if body is None:
            body = json.dumps(self._told(request, user, version)).encode()
        return web.Response(status=self.status, body=body, headers=given)

    def _told(self, request: web.BaseRequest, user: str, version: int) -> dict[str, Any]:
        return {
            "user": user,
            "version": version,
            "path": request.path_qs.removeprefix("/api"),
            "said": request.headers.get("Accept-Language"),
        }


async def serve(port: int, size: int) -> None:
    async with Answering.running(port=port) as api:
        api.body = json.dumps({"text": "x" * size}).encode()
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gateway.answering")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--size", type=int, default=400, help="of a body, in bytes")
    args = parser.parse_args()
    asyncio.run(serve(args.port, args.size))


if __name__ == "__main__":
    main()
