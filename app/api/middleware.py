"""Around every request: its id, its path, one log line and its metrics. Plain ASGI, since it costs every fetch."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problems
from app.clock import Clock
from app.errors import BodyTooLarge, BrokerError, HeadersTooLarge
from app.telemetry import REQUEST_SECONDS, REQUESTS, collected_facts, logger

log = logger("app.requests")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UNMATCHED = "unmatched"
MAX_BODY_BYTES = 1024 * 1024
MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100


class RequestTelemetry:
    """Gives each request its `X-Request-ID`, tells of it when it is answered, and answers for it if it crashes."""

    def __init__(self, app: ASGIApp, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope).get("x-request-id"))
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
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id), collected_facts() as facts:
            try:
                _require_modest_head(scope)
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
    """Ends a request whose body is over the limit, announced or not. Raises what becomes a 413."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen = 0
        announced = Headers(scope=scope).get("content-length", "") if scope["type"] == "http" else ""
        if announced.isdigit() and int(announced) > self._max_bytes:
            raise BodyTooLarge

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_bytes:
                raise HTTPException(413)  # the framework lets no other error out of its reading of a body
            return message

        await self._app(scope, counted, send)


def route_template(scope: Scope) -> str:
    """The template of the route that answered, such as `/api/v1/tokens/{provider}/{user_id}`: a bounded set.

    For a route of an included router FastAPI keeps the whole template in a private place, which a test guards.
    """
    context = scope.get("fastapi", {}).get("effective_route_context")
    template = getattr(context, "path", None) or getattr(scope.get("route"), "path", None)
    return template if isinstance(template, str) and template else _UNMATCHED


def _require_modest_head(scope: Scope) -> None:
    """Raises HeadersTooLarge: the server below takes whatever comes."""
    size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    size += sum(len(name) + len(value) for name, value in scope["headers"])
    if size > MAX_HEAD_BYTES or len(scope["headers"]) > MAX_HEADERS:
        raise HeadersTooLarge(
            f"The request's address and headers are larger than the {MAX_HEAD_BYTES // 1024} KiB or "
            f"{MAX_HEADERS} fields that this service takes."
        )


def _request_id(given: str | None) -> str:
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return secrets.token_hex(16)
