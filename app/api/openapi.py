"""The OpenAPI document, mended where FastAPI cannot say what is so, and good enough to generate a client from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app.api import examples
from app.api.problems import MEDIA_TYPE, REFERENCE, STATUSES, Problem
from app.errors import BrokerError

Json = dict[str, Any]

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_TAGS = {
    "Tokens": "What backend services ask for, instead of keeping tokens.",
    "Grants": "What users allowed: brought in, looked at, let go. Never a token.",
    "OAuth": "How accounts are connected, how a user's connections are, and what is known of providers.",
    "Calendar": "Users' calendars: kept current here, and written through to their providers.",
    "Deliveries": "Calls to providers' APIs that are kept until they arrive, or until a person decides.",
    "Gateway": "Providers' APIs, called here with the grant's token.",
    "Consumers": "The services that may call, and their keys.",
    "Operations": "For operators, orchestrators and dashboards.",
}
_ANYWHERE = """
Besides what is listed with it, any route may answer `not_found` (404) and `method_not_allowed` (405) for an address
that is not quite its own, and `internal_error` (500).
"""
_PAGE = re.compile(r"Page_(\w+)Answer_")  # what FastAPI calls a page, since `Page[GrantAnswer]` is no name
_HEADERS: Mapping[str, Json] = {
    "RequestId": {
        "description": "Names this request in the logs: yours, if it matches `[A-Za-z0-9._-]{1,128}`.",
        "required": True,
        "schema": {"type": "string"},
        "example": examples.REQUEST_ID,
    },
    "RetryAfter": {
        "description": "Seconds to wait, where they are known; `retry_after` says the same.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
        "example": "15",
    },
}
_USER = {"provider": "google", "user_id": "user-42"}
_GRANT = {**_USER, "grant_id": examples.GRANT_ID}
# Of each problem an example: its sentence, and what else is in it.
_EXAMPLES: Mapping[str, tuple[str, Json]] = {
    "invalid_request": ("The body is not JSON: Expecting value.", {}),
    "unauthenticated": ("A valid API key is needed: send it as `Authorization: Bearer <key>`.", {}),
    "forbidden": ("This API key lacks the scope admin.", {}),
    "unknown_provider": ("No provider is called 'gogle' here.", {}),
    "grant_not_found": (
        "There is no connection of this user to google. Connect the account first.",
        _USER,
    ),
    "not_found": ("There is no consumer with this id.", {}),
    "reconnect_required": (
        "The access to google has ended and cannot be renewed by itself. Please connect your account again.",
        {
            **_GRANT,
            "reason": "no_refresh_token",
            "action": {"kind": "reconnect", "url": "https://broker.example.com/api/v1/connect/dGlja2V0"},
        },
    ),
    "insufficient_scope": (
        "The connection to google does not include: calendar.readonly. Connect the account again and allow it.",
        _GRANT,
    ),
    "conflict": (
        "This refresh token was already exchanged for its successor here; the stored one is newer.",
        _USER,
    ),
    "headers_too_large": (
        "The request's address and headers are larger than the 32 KiB or 100 fields that this service takes.",
        {},
    ),
    "request_timeout": ("The request took too long to arrive.", {}),
    "body_too_large": (
        "The request body is larger than this service takes: 1 MiB, or 16 MiB for a batch of deliveries.",
        {},
    ),
    "validation_failed": (
        "The request is not valid. body.account: must not contain control characters",
        {"errors": [{"field": "body.account", "message": "must not contain control characters"}]},
    ),
    "rate_limited": ("This API key may ask 600 times in 60 seconds. Try again shortly.", {"retry_after": 7}),
    "provider_rejected_client": (
        "Google does not accept this service's registration. Its operators have to mend it; your connection is kept.",
        {**_GRANT, "provider_code": "invalid_client"},
    ),
    "provider_error": (
        "Google gave an answer that cannot be used. Your connection is kept; try again shortly.",
        {**_GRANT, "provider_code": "no_usable_access_token"},
    ),
    "provider_unavailable": (
        "Google cannot be reached at the moment. Your connection is kept; try again shortly.",
        {**_GRANT, "provider_code": "timeout", "retry_after": 5},
    ),
    "overloaded": (
        "The token store cannot be reached at the moment. Try again shortly.",
        {"retry_after": 2},
    ),
    "refresh_timeout": (
        "Renewing the access to google takes longer than you wanted to wait. It goes on.",
        {**_GRANT, "retry_after": 1},
    ),
}


class DocumentedApp(FastAPI):
    """An application whose document says what is so, and whose 405 names all methods of an address."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.add_exception_handler(405, _name_every_method)

    def openapi(self) -> Json:
        if self.openapi_schema is None:
            self.openapi_schema = _mended(super().openapi())
        return self.openapi_schema


async def _name_every_method(request: Request, error: Exception) -> Response:
    """The framework names those of one route, and an address may have several (RFC 9110 section 15.5.6)."""
    app: FastAPI = request.app
    answered = app.exception_handlers[HTTPException](request, error)
    answer = answered if isinstance(answered, Response) else await answered
    known = [
        method
        for method in _METHODS
        for route in app.router.routes
        if route.matches({**request.scope, "method": method})[0] is Match.FULL
    ]
    answer.headers["Allow"] = ", ".join(dict.fromkeys(known))
    return answer


def _mended(document: Json) -> Json:
    document = _renamed(document)
    problem = Problem.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
    for described in problem["properties"].values():
        described.pop("default", None)  # null, as FastAPI says it of no other model
    schemas = document["components"]["schemas"] | problem.pop("$defs", {}) | {"Problem": problem}
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    document["info"]["description"] = f"{document['info'].get('description', '')}{_ANYWHERE}"
    document["servers"] = [{"url": "/", "description": "This service."}]
    document["tags"] = [{"name": name, "description": text} for name, text in _TAGS.items()]
    for name, schema in document["components"]["schemas"].items():
        _drop_titles(schema)
        schema["title"] = name
        if name in examples.SHAPES:
            schema["examples"] = [examples.SHAPES[name]]
    document["components"]["headers"] = dict(_HEADERS)
    _mend_metrics(document["paths"]["/metrics"]["get"])
    for operations in document["paths"].values():
        for operation in operations.values():
            _mend_operation(operation)
    return document


def _mend_metrics(operation: Json) -> None:
    """The key is asked for only where the operators have set one."""
    operation["security"].insert(0, {})
    operation["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    operation["responses"]["401"] = _problem("unauthenticated")
    operation["responses"]["429"] = _problem("rate_limited")


def _mend_operation(operation: Json) -> None:
    for described in (
        *operation.get("parameters", ()),
        *operation.get("requestBody", {}).get("content", {}).values(),
    ):
        _drop_titles(described["schema"])
    responses = operation["responses"]
    responses["431"] = _problem("headers_too_large")
    if "requestBody" in operation:
        responses["408"] = _problem("request_timeout")
        responses["413"] = _problem("body_too_large")
    for status, response in responses.items():
        response.setdefault("headers", {})["X-Request-ID"] = {"$ref": "#/components/headers/RequestId"}
        if status in {"429", "503"}:
            response["headers"]["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
        content = response.get("content", {})
        if content.get("application/json", {}).get("schema") == REFERENCE:
            del content["application/json"]
            content[MEDIA_TYPE] = {"schema": REFERENCE, "examples": dict(_examples(response["description"]))}
    operation["responses"] = dict(sorted(responses.items()))


def _problem(code: str) -> Json:
    """As FastAPI describes the answer of a route that lists `code` alone."""
    content = {"application/json": {"schema": REFERENCE}}
    return {"description": f"`{code}`: {STATUSES[code][1]}", "content": content}


def _examples(description: str) -> Iterator[tuple[str, Json]]:
    """Of each problem that the description of an answer names."""
    known = {kind.code: kind for kind in _kinds(BrokerError)}
    for code in re.findall(r"`(\w+)`:", description):
        (status, title), (detail, more) = STATUSES[code], _EXAMPLES[code]
        value = {
            "type": f"https://broker.example.com/problems/{code}",
            "title": title,
            "status": status,
            "detail": detail,
            "code": code,
            "retryable": known[code].retryable,
            "retry_after": None,
            "request_id": examples.REQUEST_ID,
            "category": str(known[code].category),
        }
        yield code, {"summary": title, "value": value | more}


def _kinds(kind: type[BrokerError]) -> Iterator[type[BrokerError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)


def _renamed(document: Json) -> Json:
    """With names for schemas that read well as classes of a client."""
    found = document["components"]["schemas"]
    names = {name: _PAGE.sub(r"\1Page", name) for name in found}

    def renamed(node: Any) -> Any:
        if isinstance(node, list):
            return [renamed(item) for item in node]
        if not isinstance(node, dict):
            return node
        copy = {key: renamed(item) for key, item in node.items()}
        if isinstance(reference := node.get("$ref"), str):
            place, _, name = reference.rpartition("/")
            copy["$ref"] = f"{place}/{names.get(name, name)}"
        return copy

    mended: Json = renamed(document)
    mended["components"]["schemas"] = {
        names[name]: schema for name, schema in mended["components"]["schemas"].items()
    }
    return mended


def _drop_titles(schema: Json) -> None:
    """pydantic titles each field with its own name, which clients take for the name of a class."""
    schema.pop("title", None)
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", ()), *schema.get("prefixItems", ())]
    inner += [schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict)]
    for each in inner:
        _drop_titles(each)
