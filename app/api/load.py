"""Whether this process has more to do than it can: told by how late its event loop is, and who waits for it.

Whatever is asked then waits for everything that was asked before, so the longer the queue the later every answer, until
none is of use to anybody. What costs most is refused first: requests that the fast lane cannot answer.
"""

from __future__ import annotations

import asyncio
import re

from fastapi import FastAPI
from starlette.types import Scope, Send

from app.api.middleware import UNMATCHED, refusal, request_id_of
from app.api.plain import Fields
from app.errors import Overloaded
from app.metrics import REQUESTS, SHED
from app.unread import Unread

# Who looks how it is, and a user on the way back from a provider: for both there is no second try.
_SPARED = re.compile(r"/health-check.*|/metrics|(/api/v1)?/(connect/.*|oauth/[^/]+/callback)")
_EVERY_SECONDS = 0.1
_LATE_SECONDS = 0.5  # as long as anybody waits to be read, where more arrives than is read
_PUT_INTO_WORDS_SECONDS = 1.0
_TIMES = 3  # in a row: one long turn is no overload


class Refusal:
    """503, told to many at little cost: it is put into words, and into the log, once a second."""

    def __init__(self, app: FastAPI, sentence: str) -> None:
        self._app = app
        self._error = Overloaded(sentence, retry_after=1)
        self._words: tuple[int, list[tuple[bytes, bytes]], bytes] | None = None
        self._until = 0.0

    def told(self, request_id: bytes | None) -> tuple[int, Fields, bytes]:
        """Status, headers and body, for a request that came with that id."""
        now = asyncio.get_running_loop().time()
        if self._words is None or now >= self._until:
            self._words, self._until = refusal(self._app, self._error), now + _PUT_INTO_WORDS_SECONDS
        else:
            REQUESTS.labels("other", UNMATCHED, str(self._words[0])).inc()
        SHED.inc()
        status, fields, body = self._words
        said = dict(fields)[b"x-request-id"]
        own = request_id_of(None if request_id is None else request_id.decode("latin-1")).encode()
        body = body.replace(said, own)
        others = [field for field in fields if field[0] not in (b"content-length", b"x-request-id")]
        return status, [*others, (b"content-length", b"%d" % len(body)), (b"x-request-id", own)], body


class Load:
    """Looks ten times a second how late it is when it looks, and for how long somebody has waited to be read. Started on the
    event loop that it watches."""

    def __init__(self, app: FastAPI) -> None:
        self.unread = Unread()
        self.crowded = Refusal(app, "Too many clients are connected at the moment. Try again shortly.")
        self._busy = Refusal(app, "There is more to do than can be done at the moment. Try again shortly.")
        self._late = 0
        self._timer: asyncio.TimerHandle | None = None

    def refuses(self, scope: Scope) -> bool:
        """Whether the request is better told at once to come back."""
        return self._late >= _TIMES and not _SPARED.fullmatch(scope["path"])

    async def refuse(self, scope: Scope, send: Send) -> None:
        """Answers so."""
        status, fields, body = self._busy.told(dict(scope["headers"]).get(b"x-request-id"))
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_EVERY_SECONDS, self._look, loop, loop.time() + _EVERY_SECONDS)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        late = max(loop.time() - due, self.unread.waited_seconds)
        self._late = self._late + 1 if late > _LATE_SECONDS else 0
        self._timer = loop.call_later(_EVERY_SECONDS, self._look, loop, loop.time() + _EVERY_SECONDS)
