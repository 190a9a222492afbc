"""A provider's API that takes records, over a real socket: it honours Idempotency-Key, rejects what holds a bad record as a
whole, and fails as it is told. `reset` is a connection that breaks once all is applied.

async with RecordsApi.running() as api:
    api.faults["<key>"] = ["503", "reset"]     # of its first requests; or for all keys by `api.fault_of`
    api.applied                                # how often each record was
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from aiohttp import web

from app.embedded_host import free_port

Fault = Callable[[str, int], str | None]  # of a key's so manieth request, from 0


class RecordsApi:
    """A record is `{"n": 1}`, a bad one has `"bad": true` besides. `takes`: which access tokens are good."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.applied: Counter[int] = Counter()
        self.requests: list[tuple[str, dict[str, str], bytes]] = []  # method and path, headers, body
        self.of_key: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.most_at_once: Counter[str] = Counter()  # by path
        self.delay = 0.0
        self.fault_of: Fault = lambda _key, _number: None
        self.takes: Callable[[str], bool] = lambda _token: True
        self._at_once: Counter[str] = Counter()
        self._answers: dict[str, tuple[int, dict[str, Any]]] = {}
        self._port = port
        self.gate = asyncio.Event()
        self.gate.set()

    @classmethod
    @asynccontextmanager
    async def running(cls, port: int | None = None) -> AsyncIterator[Self]:
        api = cls(port or free_port())
        runner = web.ServerRunner(web.Server(api._answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", api._port, backlog=1024).start()
        try:
            yield api
        finally:
            api.gate.set()
            await runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        self._at_once[path] += 1
        self.most_at_once[path] = max(self.most_at_once[path], self._at_once[path])
        try:
            return await self._served(request, await request.read())
        finally:
            self._at_once[path] -= 1

    async def _served(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((f"{request.method} {request.path_qs}", headers, body))
        key = headers.get("idempotency-key", "")
        fault = self.fault_of(key, self.of_key[key])
        await asyncio.sleep(self.delay)
        await self.gate.wait()
        if not self.takes(headers.get("authorization", "").removeprefix("Bearer ")):
            return self._told(401, {"error": "invalid_token"})
        self.of_key[key] += 1
        if fault == "429":
            return self._told(429, {"error": "slow down"}, {"Retry-After": "1"})
        if fault is not None and fault.isdigit():
            return self._told(int(fault), {"error": "as told"})
        status, told = self._answers.get(key) or self._applied(json.loads(body or b"[]"))
        if key and status < 500:
            self._answers[key] = (status, told)
        if fault == "reset" and status < 300:
            assert request.transport is not None
            request.transport.abort()
            self.statuses["reset"] += 1
        return self._told(status, told)

    def _applied(self, told: Any) -> tuple[int, dict[str, Any]]:
        records = told if isinstance(told, list) else next(iter(told.values()), [])
        if not isinstance(records, list):
            records = []
        bad = [each["n"] for each in records if each.get("bad")]
        if bad:
            return 422, {"error": "bad records"}
        for each in records:
            self.applied[each["n"]] += 1
        return 200, {"taken": len(records)}

    def _told(self, status: int, told: dict[str, Any], headers: dict[str, str] | None = None) -> web.Response:
        self.statuses[str(status)] += 1
        return web.json_response(told, status=status, headers={"Set-Cookie": "sid=secret", **(headers or {})})
