"""Around every request: its id, its path, one log line and its metrics. Plain ASGI, since it costs every fetch."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import headers, problems
from app.api.services import services_of
from app.clock import Clock
from app.errors import BodyTooLarge, BrokerError, HeadersTooLarge, InvalidRequest
from app.metrics import REQUEST_SECONDS, REQUESTS
from app.plain_logs import structlog
from app.telemetry import collected_facts, logger

log = logger("app.requests")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNMATCHED = "unmatched"
MAX_BODY_BYTES = 1024 * 1024
MAX_BATCH_BYTES = 16 * 1024 * 1024
MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100
BODY_SECONDS = 20.0
_BATCHES = re.compile(r"(/api/v1)?/deliveries/batches")
_PROXIED = re.compile(r"(/api/v1)?/proxy/.*", re.DOTALL)  # streams, within bounds of its own
# Two of one of these, and a proxy in front may have acted upon the other one.
_ONCE = (b"authorization", b"x-api-key", b"host", b"content-type")


class RequestTelemetry:
    """Gives each request its `X-Request-ID`, tells of it when it is answered, and answers for it if it crashes. Each answer
    gets the headers of `headers.always`."""

    def __init__(self, app: ASGIApp, clock: Clock, base_url: str) -> None:
        self._app = app
        self._clock = clock
        self._always = headers.always(base_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(Headers(scope=scope).get("x-request-id"))
        # Route on the raw path: decoded, `a%2Fb` in a user id would be two segments.
        scope["path"] = (
            scope["raw_path"].decode("ascii", "replace") if scope.get("raw_path") else scope["path"]
        )
        started = self._clock.monotonic()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                fields = headers.completed(message["headers"], self._always)
                fields.append((b"x-request-id", request_id.encode()))
                message["headers"] = fields
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id), collected_facts() as facts:
            try:
                _require_sound_head(scope)
                await self._app(scope, receive, send_with_id)
            except BrokerError as error:
                await problems.respond(Request(scope), error)(scope, receive, send_with_id)
            except (
                Exception
            ) as error:  # the framework's own handler would stand outside, without the request id
                log.error("request.crashed", exc_info=error)
                if not status:
                    await problems.crash(Request(scope))(scope, receive, send_with_id)
            finally:
                self._tell(scope, status, self._clock.monotonic() - started, facts)

    def _tell(self, scope: Scope, status: int, seconds: float, facts: Mapping[str, object]) -> None:
        route, method = route_template(scope), scope["method"]
        REQUESTS.labels(method if method in _METHODS else "other", route, str(status)).inc()
        REQUEST_SECONDS.labels(route).observe(seconds)
        told = {"outcome": "ok" if status < 400 else "failed", **facts}
        milliseconds = round(seconds * 1000, 1)
        log.info("request", method=method, route=route, status=status, milliseconds=milliseconds, **told)


class BodyLimit:
    """Ends a request whose body is over the limit, announced or not, or is not here in time. Raises what becomes a 413
    or a 408. Batches of deliveries may be larger; what is passed on as it comes is bounded where that is done."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_passed_on(scope):
            await self._app(scope, receive, send)
            return
        most = MAX_BATCH_BYTES if _BATCHES.fullmatch(scope["path"]) else self._max_bytes
        seen, is_whole, deadline = 0, False, asyncio.get_running_loop().time() + BODY_SECONDS
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdigit() and int(announced) > most:
            raise BodyTooLarge

        async def counted() -> Message:
            nonlocal seen, is_whole
            if is_whole:  # from now on it is waited for the client to hang up
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, headers={"Connection": "close"}) from None
            is_whole = not message.get("more_body", False)
            seen += len(message.get("body", b""))
            if seen > most:
                raise HTTPException(413)  # the framework lets no other error out of its reading of a body
            return message

        await self._app(scope, counted, send)


def is_passed_on(scope: Scope) -> bool:
    """Whether the request is one to a provider's API, and its body not for us."""
    return _PROXIED.fullmatch(scope["path"]) is not None


def route_template(scope: Scope) -> str:
    """The template of the route that answered, such as `/api/v1/tokens/{provider}/{user_id}`: a bounded set, as in the
    document.

    For a route of an included router FastAPI keeps the whole template in a private place, which a test guards.
    """
    context = scope.get("fastapi", {}).get("effective_route_context")
    template = getattr(context, "path_format", None) or getattr(scope.get("route"), "path_format", None)
    return template if isinstance(template, str) and template else UNMATCHED


def refusal(app: FastAPI, error: BrokerError) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of the answer to a request that the application is not asked about."""
    request = Request({"type": "http", "app": app, "headers": []})
    request_id = secrets.token_hex(16)
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        answer = problems.respond(request, error)
        log.info("request", method=None, route=UNMATCHED, status=answer.status_code, outcome=error.code)
    REQUESTS.labels("other", UNMATCHED, str(answer.status_code)).inc()
    fields = headers.completed(answer.raw_headers, headers.always(services_of(request).base_url))
    return answer.status_code, [*fields, (b"x-request-id", request_id.encode())], bytes(answer.body)


def _require_sound_head(scope: Scope) -> None:
    """Raises HeadersTooLarge, or InvalidRequest: the server below takes whatever comes."""
    size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    size += sum(len(name) + len(value) for name, value in scope["headers"])
    if size > MAX_HEAD_BYTES or len(scope["headers"]) > MAX_HEADERS:
        raise HeadersTooLarge(
            f"The request's address and headers are larger than the {MAX_HEAD_BYTES // 1024} KiB or "
            f"{MAX_HEADERS} fields that this service takes."
        )
    names = [name for name, _ in scope["headers"]]
    for name in _ONCE:
        if names.count(name) > 1:
            raise InvalidRequest(f"The header {name.decode().title()} stands in the request more than once.")


def request_id_of(given: str | None) -> str:
    """The caller's own, if it is one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return secrets.token_hex(16)
