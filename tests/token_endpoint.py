"""A token endpoint for great numbers, where the sandbox would remember too much: it rotates strictly, and knows in which
order it was asked for whom.

    POST /token    `ada.2` for `ada.1`, once; the number is all that it keeps of a user
    GET /          what it has counted

In a test's own process it is `running()`; `python -m tests.token_endpoint --port 8091` is it as a process.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self
from urllib.parse import parse_qs

from aiohttp import web

from app.embedded_host import free_port


class TokenEndpoint:
    """Whose name begins with a `shut` word waits for its answer, and whose with a `failing` one is answered 503."""

    def __init__(self, port: int, *, delay: float = 0.0, expires_in: int = 3600) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.delay = delay
        self.expires_in = expires_in
        self.asked: list[str] = []  # users, in the order of the requests
        self.spent: Counter[str] = Counter()  # refresh tokens, by user
        self.reused = 0
        self.failing: set[str] = set()
        self._gates: dict[str, asyncio.Event] = {}
        self._port = port

    @classmethod
    @asynccontextmanager
    async def running(
        cls, *, port: int | None = None, delay: float = 0.0, expires_in: int = 3600
    ) -> AsyncIterator[Self]:
        endpoint = cls(port or free_port(), delay=delay, expires_in=expires_in)
        runner = web.ServerRunner(web.Server(endpoint._answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", endpoint._port, backlog=1024).start()
        try:
            yield endpoint
        finally:
            endpoint.open()
            await runner.cleanup()

    @staticmethod
    def refresh_token(user: str) -> str:
        """The one that has never been used."""
        return f"{user}.1"

    def shut(self, word: str) -> None:
        self._gates[word] = asyncio.Event()

    def open(self) -> None:
        """All that was shut."""
        for gate in self._gates.values():
            gate.set()
        self._gates.clear()

    async def has_been_asked(self, times: int, word: str = "") -> None:
        """Waits until it has been, so often, for users whose names begin so."""
        async with asyncio.timeout(30):
            while sum(user.startswith(word) for user in self.asked) < times:
                await asyncio.sleep(0.005)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":
            return web.json_response(self._report())
        form = parse_qs((await request.read()).decode())
        user, _, number = form["refresh_token"][0].rpartition(".")
        self.asked.append(user)
        for word, gate in list(self._gates.items()):
            if user.startswith(word):
                await gate.wait()
        if any(user.startswith(word) for word in self.failing):
            return web.json_response({"error": "temporarily_unavailable"}, status=503)
        if int(number) != self.spent[user] + 1:
            self.reused += 1
            return web.json_response({"error": "invalid_grant"}, status=400)
        self.spent[user] += 1
        await asyncio.sleep(self.delay)
        return web.json_response(
            {
                "access_token": f"access-of-{user}-{number}",
                "token_type": "Bearer",
                "expires_in": self.expires_in,
                "refresh_token": f"{user}.{int(number) + 1}",
            }
        )

    def _report(self) -> dict[str, int]:
        return {
            "requests": len(self.asked),
            "refreshes": self.spent.total(),
            "users": len(self.spent),
            "most_of_one_user": max(self.spent.values(), default=0),
            "reused": self.reused,
        }


async def _serve(port: int, delay: float) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with TokenEndpoint.running(port=port, delay=delay, expires_in=86400):  # none is due again meanwhile
        await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.token_endpoint")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    args = parser.parse_args()
    asyncio.run(_serve(args.port, args.delay))


if __name__ == "__main__":
    main()
