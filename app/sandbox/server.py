"""A running sandbox: the socket, and the same side door in process that `/_control` is over HTTP.

async with running() as sandbox:
    sandbox.control(settings={"rotation": "graced"}, faults=[{"kind": "drop", "after_processing": True}])
    tokens = sandbox.grant("ada")
"""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from app.sandbox.authorize import Desk
from app.sandbox.control import Control
from app.sandbox.faults import Faults
from app.sandbox.routes import Routes
from app.sandbox.state import State
from app.sandbox.storage import StateFile

DEFAULT_CLIENTS = {"sandbox": "sandbox-secret"}
STOP_GRACE_SECONDS = 0.1


class Sandbox:
    """The authorization server at `url`, from `start` until `stop`."""

    def __init__(self, url: str, desk: Desk, state_file: StateFile | None) -> None:
        self.url = url
        self._state = desk.state
        self._state_file = state_file
        faults = Faults()
        self._control = Control(self._state, faults)
        app = Routes(desk, faults, self._control, self._save).app()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_GRACE_SECONDS)

    def report(self) -> dict[str, Any]:
        """The counters, `faults` pending and `settings`, as GET /_control answers them."""
        return self._control.report()

    def control(self, **change: object) -> dict[str, Any]:
        """POST /_control: `settings`, `faults`, `clear_faults`, `reset_counters`. Raises `Refused`."""
        return self._control.change(change)

    def grant(self, user: str, **wanted: str) -> dict[str, Any]:
        """POST /_control/grants: a token answer for the user; `scope`, `client_id`. Raises `Refused`."""
        answer = self._control.grant({"user": user, **wanted}, time.time())
        self._save()
        return answer

    def accepts(self, access_token: str) -> bool:
        """Whether a resource server would."""
        return self._state.live_access_token(access_token, time.time()) is not None

    def revoke(self, user: str) -> None:
        """POST /_control/revoke: kills all that the user ever allowed."""
        self._control.revoke({"user": user})
        self._save()

    async def listen(self, listener: socket.socket) -> None:
        """Serves what comes in at a socket that listens already."""
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def stop(self) -> None:
        """Closes the socket and every connection, answered or not. May be repeated."""
        await self._runner.cleanup()

    def _save(self) -> None:
        if self._state_file is not None:
            self._state_file.save(self._state)


async def start(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    issuer: str | None = None,
    clients: Mapping[str, str] | None = None,
    redirect_uris: Collection[str] = (),
    state_path: Path | None = None,
) -> Sandbox:
    """A sandbox that listens; port 0 picks a free one.

    `issuer` is its own URL unless it is reached by another name; `clients` maps ids to secrets; with no
    `redirect_uris` any on loopback will do. Raises `OSError` where the port is taken, `ValueError` where the file at
    `state_path` is not one of ours.
    """
    state = State(clients=dict(clients or DEFAULT_CLIENTS))
    state_file = None if state_path is None else StateFile(state_path)
    if state_file is not None:
        state_file.load(state)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=1024)
    url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    sandbox = Sandbox(url, Desk(state, issuer or url, redirect_uris), state_file)
    await sandbox.listen(listener)
    return sandbox


@asynccontextmanager
async def running(
    *,
    port: int = 0,
    clients: Mapping[str, str] | None = None,
    redirect_uris: Collection[str] = (),
    state_path: Path | None = None,
) -> AsyncIterator[Sandbox]:
    """A sandbox on loopback for the length of a block; see `start`."""
    sandbox = await start(port=port, clients=clients, redirect_uris=redirect_uris, state_path=state_path)
    try:
        yield sandbox
    finally:
        await sandbox.stop()
