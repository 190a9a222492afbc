"""`/proxy/{provider}/{user_id}/{path}`: the provider's API, with the grant's token.

Written close to the ground: a call that is passed on should cost little more than one that is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Request
from pydantic import BeforeValidator, TypeAdapter, ValidationError
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from app.api.access import as_seen, identified
from app.api.deps import OpaqueName, percent_decode
from app.api.passing import HUNG_UP, HungUp, Passing, body_of, read
from app.api.proxy_described import described
from app.api.services import services_of
from app.audit.event import Disclosure
from app.consumers.consumer import Consumer, Scope
from app.errors import ValidationFailed
from app.gateway.call import DEFAULT_WITHIN_SECONDS, MAX_ATTEMPTS, MAX_WITHIN_SECONDS, Call
from app.gateway.headers import wait_in
from app.grants.grant import DEFAULT_ACCOUNT, GrantKey
from app.telemetry import note

router = APIRouter(tags=["Gateway"])

DOCUMENTED = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# Of WebDAV, CalDAV and the like. Never TRACE: its answer is the request, token and all (RFC 9110 section 9.3.8).
_OTHERS = (
    "COPY",
    "LOCK",
    "MKCALENDAR",
    "MKCOL",
    "MOVE",
    "PROPFIND",
    "PROPPATCH",
    "QUERY",
    "REPORT",
    "SEARCH",
    "UNLOCK",
)
NAME: TypeAdapter[str] = TypeAdapter(Annotated[OpaqueName, BeforeValidator(percent_decode)])
_Headers = dict[str, str]
_METHODS = frozenset({*DOCUMENTED, *_OTHERS})
_ADDRESS = "/proxy/{provider}/{user_id}"
# As routes match, on raw segments.
ADDRESSED = re.compile(
    r"(?P<prefix>/api/v1)?/proxy/(?P<provider>[^/]+)/(?P<user_id>[^/]+)(?:/(?P<path>.*))?", re.DOTALL
)


class Template(NamedTuple):
    """Stands for a route where logs and metrics ask what was called."""

    path_format: str


TEMPLATES = {prefix: Template(f"{prefix or ''}{_ADDRESS}/{{path}}") for prefix in (None, "/api/v1")}


class Shortcut:
    """Answers calls that are passed on ahead of the framework's routing, which costs more than all that is done for one here.
    The routes below are the same, for the document and for whatever else is said of them. Plain ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        match = ADDRESSED.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if match is None or scope["method"] not in _METHODS:
            await self._app(scope, receive, send)
            return
        scope["route"], scope["path_params"] = TEMPLATES[match["prefix"]], match.groupdict(default="")
        answer = await proxied(Request(scope, receive, send))
        await answer(scope, receive, send)


async def proxied(request: Request) -> Response:
    """Passes the call on."""
    services, scope = services_of(request), request.scope
    headers = read(scope["headers"])
    named = dict(headers)
    consumer = await identified(request, services, _bearer(named), named.get("x-api-key"))
    consumer.require(Scope.PROXY)
    key = as_seen(services, consumer, _key(scope["path_params"], named))
    known = await services.known.get(key)
    try:
        body = await body_of(scope, request.receive, most=services.proxy_max_bytes)
    except HungUp:
        return Response(status_code=HUNG_UP)
    call = Call(
        key,
        scope["method"],
        _target(scope),
        tuple(headers),
        body,
        attempts=_attempts(named.get("x-broker-retry")),
        within=_within(headers) if "prefer" in named else DEFAULT_WITHIN_SECONDS,
    )
    await services.disclosures.given([use_of(consumer, known.value.id, known.value.generation, key)])
    return Passing(services.gateway, call, services.uses)


def _bearer(headers: _Headers) -> str | None:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" and credentials.strip() else None


def _key(path: dict[str, Any], headers: _Headers) -> GrantKey:
    """What the path and `X-Broker-Account` name. Raises ValidationFailed by place."""
    provider = _read(path["provider"], "path.provider")
    note(provider=provider)
    account = headers.get("x-broker-account")
    return GrantKey(
        provider,
        _read(path["user_id"], "path.user_id"),
        DEFAULT_ACCOUNT if account is None else _read(account, "header.x-broker-account"),
    )


def _read(raw: str, place: str) -> str:
    try:
        return NAME.validate_python(raw)
    except ValidationError as error:
        mistake = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        sentence = f"The request is not valid. {place}: {mistake}"
        raise ValidationFailed(sentence, fields={place: mistake}) from None


def _target(scope: AsgiScope) -> str:
    """Path and query as they came."""
    path: str = scope["path_params"].get("path", "")
    query: bytes = scope["query_string"]
    return f"{path}?{query.decode('latin-1')}" if query else path


def _attempts(given: str | None) -> int | None:
    if given is None:
        return None
    if len(given) == 1 and given in "012345":
        return int(given)
    mistake = f"must be a number from 0 to {MAX_ATTEMPTS}"
    raise ValidationFailed(f"The header X-Broker-Retry {mistake}.", fields={"header.x-broker-retry": mistake})


def _within(headers: Iterable[tuple[str, str]]) -> float:
    """A preference that cannot be met is not an error (RFC 7240 section 2)."""
    wait = wait_in(", ".join(value for name, value in headers if name == "prefer"))
    return DEFAULT_WITHIN_SECONDS if wait is None else float(min(max(wait, 1), MAX_WITHIN_SECONDS))


def use_of(consumer: Consumer, grant_id: Any, generation: int, key: GrantKey) -> Disclosure:
    """What goes on record before a token is used for somebody."""
    return Disclosure(
        consumer.name, key.provider, key.user_id, grant_id, generation, consumer.key_id, "token.used"
    )


for _method in DOCUMENTED:
    router.add_api_route(
        f"{_ADDRESS}/{{path:path}}",
        proxied,
        methods=[_method],
        name=f"proxy_{_method.lower()}",
        response_class=Response,
        **described(_method),
    )
router.add_api_route(
    f"{_ADDRESS}/{{path:path}}", proxied, methods=[*_OTHERS], include_in_schema=False, name="proxy_other"
)
router.add_api_route(
    _ADDRESS, proxied, methods=[*DOCUMENTED, *_OTHERS], include_in_schema=False, name="proxy_base"
)
