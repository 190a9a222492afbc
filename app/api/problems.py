"""Errors as HTTP answers: RFC 9457 problem details. This is the only place that knows both sides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from app.api.services import Services, services_of
from app.connect.request import Wish
from app.errors import (
    BodyTooLarge,
    BrokerError,
    Forbidden,
    InsufficientScope,
    InvalidRequest,
    NotFound,
    ReconnectRequired,
    RequestTooSlow,
    Unauthenticated,
    UpstreamError,
    ValidationFailed,
)
from app.grants.grant import GrantKey
from app.telemetry import current_request_id, note, security_event

MEDIA_TYPE = "application/problem+json"

STATUSES: Mapping[str, tuple[int, str]] = {
    "invalid_request": (400, "The request is malformed"),
    "unauthenticated": (401, "No valid API key"),
    "forbidden": (403, "The API key does not allow this"),
    "unknown_provider": (404, "Unknown provider"),
    "grant_not_found": (404, "No such connection"),
    "not_found": (404, "There is nothing here"),
    "method_not_allowed": (405, "The method is not supported here"),
    "request_timeout": (408, "The request took too long to arrive"),
    "reconnect_required": (409, "The account has to be connected again"),
    "insufficient_scope": (409, "The connection lacks a permission"),
    "conflict": (409, "The request conflicts with what is stored"),
    "body_too_large": (413, "The request body is too large"),
    "headers_too_large": (431, "The request head is too large"),
    "validation_failed": (422, "A field is wrong"),
    "rate_limited": (429, "Too many requests"),
    "internal_error": (500, "Something went wrong here"),
    "provider_rejected_client": (502, "The provider does not accept this service's registration"),
    "provider_error": (502, "The provider gave an unusable answer"),
    "provider_unavailable": (503, "The provider is not available"),
    "overloaded": (503, "This service is not available for a moment"),
    "refresh_timeout": (504, "The refresh takes longer than you wanted to wait"),
}


REFERENCE = {"$ref": "#/components/schemas/Problem"}
_TRY_AGAIN = {"provider_unavailable", "overloaded", "rate_limited", "refresh_timeout"}
_FEW_SECONDS = 5


class Action(BaseModel):
    kind: str = Field(description="What the user has to do.", examples=["reconnect"])
    url: str = Field(description="Where a browser begins to do it; good for 24 hours.")


class FieldError(BaseModel):
    field: str = Field(description="The path of the field.", examples=["body.expires_in"])
    message: str = Field(description="What is wrong with it.")


def _is_absent(value: object) -> bool:
    return value is None


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(json_schema_extra={"title": "Problem"})

    type: str = Field(examples=["https://broker.example.com/problems/reconnect_required"])
    title: str
    status: int
    detail: str = Field(description="A sentence that an end user may be shown.")
    code: str = Field(description="Stable; decide by it.", examples=["reconnect_required"])
    retryable: bool = Field(description="Whether the same request may succeed later without anybody's doing.")
    retry_after: int | None = Field(description="Seconds to wait before that, where they are known.")
    request_id: str | None
    category: str | None = Field(
        default=None, exclude_if=_is_absent, description="The kind of trouble, as in history and metrics."
    )
    provider: str | None = Field(default=None, exclude_if=_is_absent)
    user_id: str | None = Field(default=None, exclude_if=_is_absent)
    grant_id: str | None = Field(default=None, exclude_if=_is_absent)
    provider_code: str | None = Field(
        default=None, exclude_if=_is_absent, description="The provider's own error code, if it gave one."
    )
    reason: str | None = Field(
        default=None, exclude_if=_is_absent, description="Why the account has to be connected again."
    )
    action: Action | None = Field(default=None, exclude_if=_is_absent)
    errors: list[FieldError] | None = Field(
        default=None, exclude_if=_is_absent, description="Each field that is wrong."
    )
    error_type: str | None = Field(
        default=None, exclude_if=_is_absent, description="Of calendars: why they were not synced."
    )
    sync: dict[str, Any] | None = Field(
        default=None,
        exclude_if=_is_absent,
        description="Of calendars: what the sync came to, as where it succeeds.",
    )


def responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for a route that answers these codes besides those that every route with a key may answer."""
    return responses_without_key(
        *("invalid_request", "unauthenticated", "forbidden", "validation_failed"),
        *("rate_limited", "overloaded", *codes),
    )


def responses_without_key(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The same for a route that answers these codes only. The schema is named here and described once, by `DocumentedApp`:
    told of a model FastAPI would build a validator for each of several hundred."""
    by_status: dict[int | str, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(STATUSES[code][0], []).append(code)
    return {
        status: {
            "description": "; ".join(f"`{code}`: {STATUSES[code][1]}" for code in known),
            "content": {"application/json": {"schema": REFERENCE}},
        }
        for status, known in by_status.items()
    }


def install(app: FastAPI) -> None:
    """Makes every error of `app` a problem."""
    app.add_exception_handler(BrokerError, _broker_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)


def problem_of(request: Request, error: BrokerError) -> Problem:
    """`error` as problem details; a dead grant comes with the way to connect it again."""
    status, title = STATUSES[error.code]
    return Problem(
        type=f"{services_of(request).base_url}/problems/{error.code}",
        title=title,
        status=status,
        detail=error.detail,
        code=error.code,
        retryable=error.retryable,
        retry_after=_retry_after(error),
        request_id=current_request_id(),
        category=error.category,
        provider=error.provider,
        user_id=error.user_id,
        grant_id=None if error.grant_id is None else str(error.grant_id),
        provider_code=error.provider_code if isinstance(error, UpstreamError) else None,
        reason=error.reason if isinstance(error, ReconnectRequired) else None,
        action=_action(request, error),
        errors=[FieldError(field=field, message=message) for field, message in error.fields.items()]
        if isinstance(error, ValidationFailed)
        else None,
        **error.extension,
    )


def _retry_after(error: BrokerError) -> int | None:
    """Seconds. Where nobody knows how long the trouble lasts, a caller is told to come back in a few."""
    if error.retry_after is not None or error.code not in _TRY_AGAIN:
        return error.retry_after
    return _FEW_SECONDS


def _action(request: Request, error: BrokerError) -> Action | None:
    """What helps where the resource owner has to consent once more."""
    if not isinstance(error, ReconnectRequired | InsufficientScope) or error.account is None:
        return None
    if error.provider is None or error.user_id is None:
        return None
    return reconnect(services_of(request), GrantKey(error.provider, error.user_id, error.account))


def reconnect(services: Services, key: GrantKey) -> Action | None:
    """The way to connect a grant again, where the provider has one and we are registered there."""
    client = services.clients.get(key.provider)
    if client.client_id is None or not client.provider.is_connectable:
        return None
    return Action(kind="reconnect", url=services.tickets.url(Wish(key.provider, key.user_id, key.account)))


def respond(request: Request, error: BrokerError) -> JSONResponse:
    """`error` as the answer to a request; its line in the log says so too."""
    problem = problem_of(request, error)
    note(outcome=problem.code, provider=problem.provider, grant_id=problem.grant_id)
    if isinstance(error, Forbidden):
        security_event("forbidden", detail=error.detail)
    headers = {"Cache-Control": "no-store"}
    if problem.retry_after is not None:
        headers["Retry-After"] = str(problem.retry_after)
    if isinstance(error, Unauthenticated):  # RFC 6750 section 3.1: a reason only where there was a key
        reason = ', error="invalid_token"' if error.key_given else ""
        headers["WWW-Authenticate"] = f'Bearer realm="token broker"{reason}'
    return JSONResponse(
        problem.model_dump(),
        status_code=problem.status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )


async def _broker_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, BrokerError)
    return respond(request, error)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    fields: dict[str, str] = {}
    for mistake in error.errors():
        if mistake["type"] == "json_invalid":
            return respond(request, InvalidRequest(f"The body is not JSON: {mistake['ctx']['error']}."))
        path = ".".join(str(step) for step in mistake["loc"])
        fields.setdefault(path, str(mistake["msg"]).removeprefix("Value error, "))
    sentence = "; ".join(f"{path}: {message}" for path, message in fields.items())
    return respond(request, ValidationFailed(f"The request is not valid. {sentence}", fields=fields))


class _NoSuchMethod(BrokerError):
    code = "method_not_allowed"


_FRAMEWORK_ERRORS: Mapping[int, BrokerError] = {
    404: NotFound("There is nothing at this address. The routes are described at /docs."),
    405: _NoSuchMethod("This address has no such method. The routes are described at /docs."),
    408: RequestTooSlow(),
    413: BodyTooLarge(),
}


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses by itself."""
    assert isinstance(error, HTTPException)
    known = _FRAMEWORK_ERRORS.get(error.status_code)
    answer = respond(request, known or InvalidRequest("The request cannot be understood."))
    answer.headers.update(error.headers or {})
    return answer


def crash(request: Request) -> JSONResponse:
    """The answer to a request that failed for a reason nobody foresaw."""
    return respond(request, BrokerError("Something went wrong here, and was recorded under this request id."))
