"""The hostile authorization server as a process, and what it remembers."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, cast

import aiohttp

from tests.faults.evidence import Family, RefreshToken, Upstream
from tests.faults.processes import Process, own_port, until

Rotation = Literal["strict", "graced", "never"]
GRACE_SECONDS = 60.0  # longer than a lease, and still long over before a scenario's end could profit from it


class AuthorizationServer:
    """Rotates by `rotation`, all registrations alike. Access tokens are collected while it runs, as it forgets them."""

    def __init__(self, folder: Path) -> None:
        self.port = own_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._state = folder / "authorization-server.json"
        self._access_tokens: dict[str, tuple[str, float]] = {}
        self._looking = threading.Lock()
        self._process = Process(
            [
                sys.executable,
                "-m",
                "tests.faults.sandbox",
                "--port",
                str(self.port),
                "--state",
                str(self._state),
            ],
            folder / "authorization-server.log",
            environment=dict(os.environ),
        )

    async def start(self) -> None:
        """Answers when this returns."""
        self._process.start()
        self._process.log.touch()
        listening = "sandbox listening"
        await until(lambda: listening in self._process.last_words(), seconds=20, what="the sandbox listens")

    @property
    def pid(self) -> int:
        return self._process.pid

    async def end(self) -> None:
        if self._process.is_running:
            await self._process.end(seconds=5)

    def pause(self) -> None:
        self._process.pause()

    def resume(self) -> None:
        self._process.resume()

    async def control(self, **change: object) -> dict[str, Any]:
        """`settings`, `faults`, `clear_faults`, `reset_counters`; the report afterwards."""
        return await self._post("/_control", change)

    async def grant(self, user: str) -> dict[str, Any]:
        """A token answer for the user."""
        return await self._post("/_control/grants", {"user": user})

    async def revoke(self, user: str) -> None:
        """The user withdraws all they ever allowed."""
        await self._post("/_control/revoke", {"user": user})

    def look(self) -> dict[str, Any]:
        """What it knows now; notes access tokens, which it forgets some time after they have expired.

        Raises AssertionError where it does not say so within 5 s.
        """
        with self._looking:
            self._state.unlink(missing_ok=True)
            self._process.signal(signal.SIGUSR1)
            deadline = time.monotonic() + 5
            while not self._state.exists():
                assert time.monotonic() < deadline, f"the sandbox says nothing:\n{self._process.last_words()}"
                time.sleep(0.005)
            state = cast(dict[str, Any], json.loads(self._state.read_text()))
            for token, found in state["access_tokens"].items():
                self._access_tokens[token] = (found["user"], found["expires"])
            return state

    async def evidence(self) -> Upstream:
        """All that it knows of what happened."""
        report, state = await self.control(), self.look()
        return Upstream(
            max_in_flight_by_user=report["max_in_flight_by_user"],
            refreshes=report["refreshes"],
            refreshes_by_user=report["refreshes_by_user"],
            reuse_detected=report["reuse_detected"],
            unknown_refresh_tokens=report["unknown_refresh_tokens"],
            elsewhere=report["hits"].get("elsewhere", 0),
            grace_seconds=report["settings"]["grace_seconds"]
            if report["settings"]["rotation"] == "graced"
            else None,
            families={each["id"]: Family(each["user"], each["revoked"]) for each in state["families"]},
            refresh_tokens={
                sha256(token.encode()).digest(): RefreshToken(each["family_id"], each["spent"])
                for token, each in state["refresh_tokens"].items()
            },
            access_tokens=dict(self._access_tokens),
        )

    async def _post(self, path: str, body: object) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=10)
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.post(self.url + path, json=body) as answer,
        ):
            answer.raise_for_status()
            return cast(dict[str, Any], await answer.json())
