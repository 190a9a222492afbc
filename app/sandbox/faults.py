"""How an answer goes wrong: every kind of fault, how it is acted out, and the queue of those still to come."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal

from aiohttp import web
from pydantic import Field, field_validator

from app.sandbox.settings import Strict
from app.sandbox.wire import declared, hung_up, linger, members, reset, unissued

Endpoint = Literal["token", "revoke", "introspect", "userinfo", "api", "authorize"]
Process = Callable[[], Awaitable[web.Response]]


class Fault(Strict):
    """One way to fail, for the next `times` requests at `endpoint` (-1: until cleared).

    Without `after_processing` the request changes nothing, and where a fault needs an answer to maim it is one
    whose tokens were never issued. With it the state changes first, and the true answer is maimed. `user` limits
    the fault to requests that carry a token of that user.
    """

    endpoint: Endpoint = "token"
    times: int = Field(default=1, ge=-1)
    after_processing: bool = False
    user: str | None = None

    @field_validator("times")
    @classmethod
    def _not_zero(cls, times: int) -> int:
        if times == 0:
            raise ValueError("0 times is never")
        return times

    async def happen(self, request: web.Request, process: Process) -> web.StreamResponse:
        """Answers the request the wrong way; `process` is what would have answered it."""
        answer = await process() if self.after_processing else unissued()
        with suppress(ConnectionResetError):  # the client left first
            return await self.act(request, answer)
        return answer

    async def act(self, request: web.Request, answer: web.Response) -> web.StreamResponse:
        """What becomes of `answer`: nothing, unless the kind says so."""
        return answer


class Delay(Fault):
    """The right answer, `seconds` late. A client that leaves during a wait before processing changes nothing."""

    kind: Literal["delay"]
    seconds: float = Field(ge=0)

    async def happen(self, request: web.Request, process: Process) -> web.StreamResponse:
        if self.after_processing:
            answer = await process()
            await linger(request, self.seconds)
            return answer
        stayed = await linger(request, self.seconds)
        return await process() if stayed else unissued()


class Status(Fault):
    """An answer of one's own; a `body` that is an object is sent as JSON."""

    kind: Literal["status"]
    status: int = Field(default=503, ge=200, le=599)
    body: str | dict[str, Any] = ""
    content_type: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)

    async def act(self, request: web.Request, answer: web.Response) -> web.StreamResponse:
        text = self.body if isinstance(self.body, str) else json.dumps(self.body)
        content_type = self.content_type or ("text/plain" if text is self.body else "application/json")
        headers = {"Content-Type": content_type, **self.headers}
        return web.Response(status=self.status, body=text.encode(), headers=headers)


class Drop(Fault):
    """The connection is closed without an answer."""

    kind: Literal["drop"]

    async def act(self, request: web.Request, answer: web.Response) -> web.StreamResponse:
        return hung_up(request, answer)


class Reset(Fault):
    """The connection is reset (RST) without an answer."""

    kind: Literal["reset"]

    async def act(self, request: web.Request, answer: web.Response) -> web.StreamResponse:
        return reset(request, answer)


class Truncate(Fault):
    """Half of the declared content, then the connection is closed."""

    kind: Literal["truncate"]

    async def act(self, request: web.Request, answer: web.Response) -> web.StreamResponse:
        body = (answer.text or "").encode()
        response = await declared(request, answer, len(body))
        await response.write(body[: len(body) // 2])
        return hung_up(request, response)


class NotHttp(Fault):
    """Bytes that are no HTTP, as of another service on that port; then the connection is closed."""

    kind: Literal["not_http"]

    async def act(self, request: web.Request, answer: web.Response) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.write(b"SSH-2.0-sandbox\r\n")
        return hung_up(request, answer)


class Garbage(Fault):
    """200, said to be JSON, and not JSON."""

    kind: Literal["garbage"]

    async def act(self, request: web.Request, answer: web.Response) -> web.StreamResponse:
        return web.Response(body=b'}{ "access_token": nonsense', content_type="application/json")


class NoAccessToken(Fault):
    """200 and JSON, but for the access token."""

    kind: Literal["no_access_token"]

    async def act(self, request: web.Request, answer: web.Response) -> web.StreamResponse:
        kept = {name: value for name, value in members(answer).items() if name != "access_token"}
        return web.json_response(kept)


class WrongType(Fault):
    """A token type nobody here knows."""

    kind: Literal["wrong_type"]

    async def act(self, request: web.Request, answer: web.Response) -> web.StreamResponse:
        return web.json_response({**members(answer), "token_type": "mac"})


class Big(Fault):
    """A valid answer of at least `size` bytes."""

    kind: Literal["big"]
    size: int = Field(default=5_000_000, ge=0, le=1_000_000_000)

    async def act(self, request: web.Request, answer: web.Response) -> web.StreamResponse:
        return web.json_response({**members(answer), "padding": "x" * self.size})


class SlowDrip(Fault):
    """The answer, one byte each `interval` seconds."""

    kind: Literal["slow_drip"]
    interval: float = Field(default=0.1, ge=0)

    async def act(self, request: web.Request, answer: web.Response) -> web.StreamResponse:
        body = (answer.text or "").encode()
        response = await declared(request, answer, len(body))
        for position in range(len(body)):
            if not await linger(request, self.interval):
                break
            await response.write(body[position : position + 1])
        return response


class Hang(Fault):
    """No answer until the client goes or `seconds` have passed; then the connection is closed."""

    kind: Literal["hang"]
    seconds: float = Field(default=3600.0, ge=0)

    async def act(self, request: web.Request, answer: web.Response) -> web.StreamResponse:
        await linger(request, self.seconds)
        return hung_up(request, answer)


class Redirect(Fault):
    """A redirect that asks to repeat the request elsewhere; following it is counted in `hits.elsewhere`."""

    kind: Literal["redirect"]
    status: Literal[301, 302, 303, 307, 308] = 307
    location: str = "/elsewhere"

    async def act(self, request: web.Request, answer: web.Response) -> web.StreamResponse:
        return web.Response(status=self.status, headers={"Location": self.location})


AnyFault = Annotated[
    Delay
    | Status
    | Drop
    | Reset
    | Truncate
    | NotHttp
    | Garbage
    | NoAccessToken
    | WrongType
    | Big
    | SlowDrip
    | Hang
    | Redirect,
    Field(discriminator="kind"),
]


class Faults:
    """The faults still to come; the oldest that matches a request is the one that happens to it."""

    UNTIL_CLEARED: ClassVar[int] = -1

    def __init__(self) -> None:
        self._left: dict[int, tuple[Fault, int]] = {}
        self._added = 0

    def add(self, faults: Iterable[Fault]) -> None:
        for fault in faults:
            self._left[self._added] = fault, fault.times
            self._added += 1

    def clear(self) -> None:
        self._left.clear()

    def take(self, endpoint: str, user: str | None) -> Fault | None:
        """The fault of this request, used up by one."""
        for key, (fault, times) in self._left.items():
            if fault.endpoint == endpoint and fault.user in (None, user):
                self._use(key, fault, times)
                return fault
        return None

    def pending(self) -> list[dict[str, Any]]:
        """What is left, in the form it was asked for."""
        return [
            {**fault.model_dump(exclude_none=True), "times": times} for fault, times in self._left.values()
        ]

    def _use(self, key: int, fault: Fault, times: int) -> None:
        if times == 1:
            del self._left[key]
        elif times != self.UNTIL_CLEARED:
            self._left[key] = fault, times - 1
