"""Whether this process has more to do than it can: told by how late its event loop is.

Whatever is asked then waits for everything that was asked before, so the longer the queue the later every answer, until
none is of use to anybody. What costs most is refused first: requests that the fast lane cannot answer.
"""

from __future__ import annotations

import asyncio
import re

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.types import Scope, Send

from app.api.middleware import UNMATCHED, refusal, request_id_of
from app.errors import Overloaded
from app.metrics import REQUESTS, SHED

# Who looks how it is, and a user on the way back from a provider: for both there is no second try.
_SPARED = re.compile(r"/health-check.*|/metrics|(/api/v1)?/(connect/.*|oauth/[^/]+/callback)")
_EVERY_SECONDS = 0.1
_LATE_SECONDS = 0.5
_TIMES = 3  # in a row: one long turn is no overload


class Load:
    """Looks ten times a second how late it is when it looks. Started on the event loop that it watches."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._late = 0
        self._timer: asyncio.TimerHandle | None = None
        self._refusal: tuple[int, list[tuple[bytes, bytes]], bytes] | None = None

    def refuses(self, scope: Scope) -> bool:
        """Whether the request is better told at once to come back."""
        return self._late >= _TIMES and not _SPARED.fullmatch(scope["path"])

    async def refuse(self, scope: Scope, send: Send) -> None:
        """Answers so, at little cost: it is put into words, and into the log, once while the overload lasts."""
        if self._refusal is None:
            self._refusal = refusal(
                self._app,
                Overloaded(
                    "There is more to do than can be done at the moment. Try again shortly.", retry_after=1
                ),
            )
        else:
            REQUESTS.labels("other", UNMATCHED, str(self._refusal[0])).inc()
        SHED.inc()
        status, fields, body = self._refusal
        *others, (name, said) = fields
        request_id = request_id_of(Headers(scope=scope).get("x-request-id")).encode()
        await send(
            {"type": "http.response.start", "status": status, "headers": [*others, (name, request_id)]}
        )
        await send({"type": "http.response.body", "body": body.replace(said, request_id)})

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_EVERY_SECONDS, self._look, loop, loop.time() + _EVERY_SECONDS)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._late = self._late + 1 if loop.time() - due > _LATE_SECONDS else 0
        if not self._late:
            self._refusal = None
        self._timer = loop.call_later(_EVERY_SECONDS, self._look, loop, loop.time() + _EVERY_SECONDS)
