"""Refresh requests, held at the provider until somebody says how they end."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

from aiohttp import web
from pydantic import Field, TypeAdapter

from app.sandbox.faults import AnyFault, Fault, Process
from app.sandbox.server import Sandbox
from app.sandbox.state import State
from app.sandbox.tokens import RefreshToken
from tests.faults.protocol.history import Sending

_FAULTS: TypeAdapter[AnyFault] = TypeAdapter(AnyFault)
Rotation = Literal["strict", "graced", "never"]
GRACE_SECONDS = 30 * 86400.0  # so that where there is a grace period nothing is ever lost to its end
_REFUSAL = {"kind": "status", "status": 400, "body": {"error": "invalid_grant"}}
# How a request may end. Those that are `lost` change the provider's state, and nobody is told.
ENDINGS: Mapping[str, Mapping[str, Any] | None] = {
    "answered": None,
    "lost: reset": {"kind": "reset", "after_processing": True},
    "lost: closed": {"kind": "drop", "after_processing": True},
    "lost: 502": {"kind": "status", "status": 502, "after_processing": True},
    "lost: truncated": {"kind": "truncate", "after_processing": True},
    "half an answer": {"kind": "no_access_token", "after_processing": True},
    "not processed: 503": {"kind": "status", "status": 503},
    "not processed: 429": {"kind": "status", "status": 429, "headers": {"Retry-After": "0"}},
    "not processed: closed": {"kind": "drop"},
    "called dead": _REFUSAL,
}


def fingerprint_of(token: str) -> bytes:
    return sha256(token.encode()).digest()


@dataclass(eq=False)
class Held:
    """A request that waits for its ending."""

    sending: Sending
    task: asyncio.Task[Any]  # which refreshes
    ending: asyncio.Future[str]

    def end(self, ending: str) -> None:
        if not self.ending.done():
            self.ending.set_result(ending)


@dataclass(eq=False)
class Gate:
    """In front of the sandbox's token endpoint. `stir` is called whenever a request begins to wait."""

    sandbox: Sandbox
    held: list[Held]
    stir: Callable[[], None]
    now: Callable[[], float]
    is_open: bool = False
    access_tokens: dict[str, tuple[str, float]] = field(default_factory=dict)  # to their users and ends
    _coming: dict[str, deque[tuple[Sending, asyncio.Task[Any]]]] = field(
        default_factory=lambda: defaultdict(deque)
    )

    @property
    def state(self) -> State:
        """The provider's memory."""
        sandbox: Any = self.sandbox
        state: State = sandbox._state
        return state

    @contextmanager
    def expecting(self, sending: Sending, task: asyncio.Task[Any]) -> Iterator[None]:
        """It is about to be sent by `task`, and its answer awaited."""
        coming = self._coming[sending.user]
        coming.append((sending, task))
        try:
            yield
        finally:
            with suppress(ValueError):  # it arrived
                coming.remove((sending, task))

    def owner(self, fingerprint: bytes | None) -> RefreshToken | None:
        """The provider's record of the refresh token."""
        tokens = self.state.refresh_tokens.items()
        return next((record for token, record in tokens if fingerprint_of(token) == fingerprint), None)

    def note_access_tokens(self) -> None:
        """Before the provider forgets them, which it does some time after they have expired."""
        for token, access in self.state.access_tokens.items():
            self.access_tokens[token] = (access.user or "", access.expires)

    def begin_anew(self, rotation: Rotation) -> None:
        """The provider knows nobody, and every refresh is held."""
        self.access_tokens.clear()
        self._coming.clear()
        self.is_open = False
        for known in (self.state.families, self.state.refresh_tokens, self.state.access_tokens):
            known.clear()
        settings = {"rotation": rotation, "grace_seconds": GRACE_SECONDS}
        self.sandbox.control(settings=settings, clear_faults=True, reset_counters=True)
        sandbox: Any = self.sandbox
        sandbox._control._faults.add([_Waits(times=-1, gate=self)])

    async def pass_through(self, user: str, request: web.Request, process: Process) -> web.StreamResponse:
        sending, task = self._coming[user].popleft()

        async def observed() -> web.Response:
            reuse = self.state.counters.reuse_detected
            answer = await process()
            sending.is_reuse = self.state.counters.reuse_detected > reuse
            body = json.loads(answer.text or "{}")
            self.note_access_tokens()
            if (refresh_token := body.get("refresh_token")) is not None:
                sending.issued = fingerprint_of(refresh_token)
            return answer

        sending.ending = "answered" if self.is_open else await self._ending(sending, task)
        sending.ended_at = self.now()
        fault = ENDINGS[sending.ending]
        if fault is None:
            return await observed()
        return await _FAULTS.validate_python(dict(fault)).happen(request, observed)

    async def _ending(self, sending: Sending, task: asyncio.Task[Any]) -> str:
        held = Held(sending, task, asyncio.get_running_loop().create_future())
        self.held.append(held)
        self.stir()
        try:
            return await held.ending
        finally:
            self.held.remove(held)


class _Waits(Fault):
    """Whatever the gate makes of it."""

    gate: Any = Field(exclude=True)

    async def happen(self, request: web.Request, process: Process) -> web.StreamResponse:
        token = str((await request.post())["refresh_token"])
        gate: Gate = self.gate
        family = gate.state.family_of(token)
        return await (process() if family is None else gate.pass_through(family.user, request, process))
