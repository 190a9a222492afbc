"""`/calendar/webhooks`: where calendar providers say that something has changed. They have no API key; who knows a channel's
secret is believed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse, Response

from app.api.deps import ProviderPath
from app.api.problems import responses_without_key
from app.api.services import Use
from app.errors import InvalidRequest
from app.telemetry import note

router = APIRouter(tags=["Calendar"])

_LONGEST_TOKEN = 4096
_LARGEST_BODY = 256 * 1024


@router.post(
    "/calendar/webhooks/{provider}",
    status_code=202,
    summary="What calendar providers call",
    response_class=Response,
    responses={
        200: {
            "description": "The validation token, as it was sent.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        **responses_without_key(
            *("invalid_request", "unknown_provider", "not_found", "validation_failed", "overloaded"),
            *("body_too_large", "request_timeout"),
        ),
    },
)
async def hear_calendar_change(
    provider: ProviderPath,
    request: Request,
    services: Use,
    validation_token: Annotated[
        str | None,
        Query(
            alias="validationToken",
            max_length=_LONGEST_TOKEN,
            description="Microsoft asks by it whether the address is meant.",
        ),
    ] = None,
) -> Response:
    """Always 202 for a notification that is well-formed, whosever it is: it says that the calendar is worth looking at, and
    whether it is believed is told to nobody. The calendar is synced within ten seconds or so."""
    api = services.hearing.api_of(provider)
    note(provider=provider)
    if validation_token is not None and api.validates:
        return PlainTextResponse(validation_token)
    try:
        heard = api.heard(request.headers, await _body(request))
    except ValueError as error:
        raise InvalidRequest(f"The notification is malformed. {error}", provider=provider) from error
    await services.hearing.notified(provider, heard)
    return Response(status_code=202)


async def _body(request: Request) -> bytes:
    """Raises ValueError for one that is larger than any notification."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_BODY:
            raise ValueError("It is too large.")
    return bytes(body)
