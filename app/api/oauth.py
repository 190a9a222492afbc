"""`/oauth` and `/connect`: how an end user's account comes to be connected."""

from __future__ import annotations

import html
import secrets
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, Field

from app.api.access import consumer_with
from app.api.deps import Body, OpaqueName, ProviderPath
from app.api.headers import PERMISSIONS_POLICY
from app.api.problems import REFERENCE, STATUSES, responses
from app.api.services import Services, Use
from app.connect.request import Callback, Wish
from app.consumers.consumer import Consumer, Scope
from app.errors import BrokerError
from app.grants.grant import DEFAULT_ACCOUNT
from app.telemetry import note

router = APIRouter(tags=["OAuth"])

_COOKIE = "broker_browser"
_COOKIE_SECONDS = 24 * 3600

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body{{font:18px/1.5 system-ui,sans-serif;max-width:34em;margin:15vh auto;padding:0 1em;color:#222}}
h1{{font-size:1.4em}}</style></head>
<body><h1>{title}</h1><p>{text}</p></body></html>
"""
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'",
    "Permissions-Policy": PERMISSIONS_POLICY,
}


_HTML = {"text/html": {"schema": {"type": "string"}}}


def _pages(bad: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for a route that people's browsers open."""
    return {
        303: {
            "description": "On to the next address.",
            "headers": {
                "Location": {
                    "description": "The next address.",
                    "required": True,
                    "schema": {"type": "string", "format": "uri"},
                }
            },
        },
        400: {"description": bad, "content": _HTML},
        422: {
            "description": "`validation_failed`: The address is not one of ours",
            "content": {"application/json": {"schema": REFERENCE}},
        },
        503: {"description": "The token store cannot be reached; a page says so.", "content": _HTML},
    }


class AuthorizeBody(Body):
    """Who wants to connect what, and where to go afterwards."""

    user_id: OpaqueName = Field(description="Your name for the user.")
    account: OpaqueName = Field(
        default=DEFAULT_ACCOUNT, description="Tells several accounts of one user at one provider apart."
    )
    scopes: list[
        Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$")]
    ] = Field(default=[], max_length=100, description="Left out: those of the registration or the catalogue.")
    return_to: str | None = Field(
        default=None,
        max_length=2048,
        description="Where the browser goes afterwards; under one of the prefixes of `BROKER_RETURN_TO`.",
    )
    login_hint: str | None = Field(
        default=None,
        max_length=255,
        description="Who the provider should expect, such as an email address.",
    )
    browser_bound: bool = Field(
        default=True,
        description="False: `authorization_url` is the provider's own, and any browser may finish.",
    )


class AuthorizeAnswer(BaseModel):
    """The way to the provider."""

    authorization_url: str = Field(description="Open it in the user's browser.")
    state: str = Field(description="Names the attempt; the callback has it, too.")
    expires_at: datetime = Field(description="When the attempt ends.")


@router.post(
    "/oauth/{provider}/authorize",
    status_code=201,
    summary="Begin to connect an account",
    responses=responses("unknown_provider", "provider_rejected_client"),
)
async def authorize(
    provider: ProviderPath,
    body: AuthorizeBody,
    services: Use,
    consumer: Annotated[Consumer, Depends(consumer_with(Scope.GRANTS_WRITE))],
) -> AuthorizeAnswer:
    """PKCE with S256 wherever the provider takes it; the state works once and for 10 minutes, in the browser that opened the URL."""
    services.clients.get(provider)
    note(provider=provider)
    consumer.require_access(provider, body.user_id)
    wish = Wish(provider, body.user_id, body.account, tuple(body.scopes), body.return_to, body.login_hint)
    begun = await services.connector.begin(wish, browser_bound=body.browser_bound, actor=consumer.name)
    return AuthorizeAnswer(
        authorization_url=begun.authorization_url, state=begun.state, expires_at=begun.expires_at
    )


@router.get(
    "/connect/{ticket}",
    summary="What a browser opens",
    status_code=303,
    response_class=Response,
    responses={
        **_pages("The link is damaged or too old; a page says so."),
        404: {"description": "The provider is not known here any more; a page says so.", "content": _HTML},
        502: {"description": "We are not registered at the provider; a page says so.", "content": _HTML},
    },
)
async def connect(
    ticket: Annotated[str, Path(description="Of an `authorization_url`, or of a problem's `action.url`.")],
    request: Request,
    services: Use,
) -> Response:
    """Binds the attempt to this browser with a cookie and goes on to the provider."""
    name = _cookie_name(services)
    present = request.cookies.get(name, "")
    browser = present if len(present) == 43 else secrets.token_urlsafe(32)
    try:
        url = await services.connector.open(ticket, browser=browser)
    except BrokerError as error:
        return _page("This link does not work", error.detail, status=STATUSES[error.code][0])
    response = RedirectResponse(url, status_code=303)
    response.set_cookie(
        name,
        browser,
        max_age=_COOKIE_SECONDS,
        path="/",
        secure=services.base_url.startswith("https://"),
        httponly=True,
        samesite="lax",
    )
    return response


@router.get(
    "/oauth/{provider}/callback",
    summary="Where the provider sends the browser back to",
    status_code=303,
    response_class=Response,
    responses={
        200: {
            "description": "Connected, and no `return_to` was given: a plain page.",
            "content": {"text/html": {"schema": {"type": "string"}}},
        },
        **_pages("The attempt is unknown, was used, or was begun elsewhere; a page says so."),
    },
)
async def callback(
    provider: ProviderPath,
    request: Request,
    services: Use,
    state: Annotated[str | None, Query(description="Of the attempt.")] = None,
    code: Annotated[str | None, Query(description="What tokens are exchanged for.")] = None,
    error: Annotated[
        str | None, Query(description="Why there is no code (RFC 6749 section 4.1.2.1).")
    ] = None,
    iss: Annotated[str | None, Query(description="Who answers (RFC 9207).")] = None,
) -> Response:
    """Exchanges the code and keeps the grant; then to `return_to` with `status=connected`, or with
    `status=failed&error=<code>`."""
    try:  # the parameters are taken from the address itself, where each has to stand once
        browser = request.cookies.get(_cookie_name(services))
        brought = Callback.of(request.query_params.multi_items(), browser=browser)
        finished = await services.connector.finish(provider, brought)
    except BrokerError as refusal:
        return _page("Nothing was connected", refusal.detail, status=STATUSES[refusal.code][0])
    if finished.return_to is not None:
        return RedirectResponse(finished.return_to, status_code=303)
    if finished.error is None:
        return _page("Connected", finished.detail, status=200)
    return _page("Nothing was connected", finished.detail, status=400)


def _cookie_name(services: Services) -> str:
    """With the prefix no other host, a sibling domain least of all, can set it."""
    return f"__Host-{_COOKIE}" if services.base_url.startswith("https://") else _COOKIE


def _page(title: str, text: str, *, status: int) -> HTMLResponse:
    return HTMLResponse(
        _PAGE.format(title=html.escape(title), text=html.escape(text)),
        status_code=status,
        headers=_PAGE_HEADERS,
    )
