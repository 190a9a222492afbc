"""What the document says of `/proxy/{provider}/{user_id}/{path}`."""

from __future__ import annotations

from typing import Any

from app.api.problems import responses
from app.gateway.call import DEFAULT_WITHIN_SECONDS, MAX_ATTEMPTS, MAX_WITHIN_SECONDS
from app.grants.grant import DEFAULT_ACCOUNT

_FAILURES = (
    *("unknown_provider", "grant_not_found", "reconnect_required", "insufficient_scope"),
    *("body_too_large", "provider_rejected_client", "provider_error", "provider_unavailable"),
    "refresh_timeout",
)
_DESCRIPTION = """The provider's API with the grant's access token, below the address that the catalogue has for it.

The answer is the provider's own, whatever its status, with `X-Broker-Attempts` (requests sent for it), `X-Broker-Grant` and
`X-Broker-Cache`; it streams, and so does the request's body. Problems of this service are told by their
`application/problem+json` and by having no `X-Broker-Attempts`. A token that the provider refuses with 401 is renewed, and the
request repeated once; a 403 that says that the token lacks a scope becomes `insufficient_scope`."""


def _parameter(name: str, place: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": description,
        "schema": schema,
    }


_PARAMETERS = [
    _parameter("provider", "path", {"type": "string"}, "An OAuth client registration."),
    _parameter(
        "user_id",
        "path",
        {"type": "string", "minLength": 1, "maxLength": 255},
        "Your name for the user, percent-encoded.",
    ),
    _parameter(
        "path",
        "path",
        {"type": "string"},
        "What follows the API's address, raw: it is sent as it comes. Nothing that could lead out of it is.",
    ),
    _parameter(
        "X-Broker-Account",
        "header",
        {"type": "string", "default": DEFAULT_ACCOUNT, "minLength": 1, "maxLength": 255},
        "Tells several accounts of one user at one provider apart; percent-encoded.",
    ),
    _parameter(
        "X-Broker-Retry",
        "header",
        {"type": "integer", "minimum": 0, "maximum": MAX_ATTEMPTS},
        "Tries of this call at most. 0: one, and none after a 401 either.",
    ),
    _parameter(
        "Prefer",
        "header",
        {"type": "string"},
        f"`wait=N` (RFC 7240): seconds until an answer begins, 1 to {MAX_WITHIN_SECONDS}, else "
        f"{DEFAULT_WITHIN_SECONDS:g}. Other preferences are passed on.",
    ),
]
_BYTES: dict[str, Any] = {"type": "string", "format": "binary", "examples": ['{"summary": "Visit"}']}
_ANY = {
    "description": "The provider's own answer, whatever its status.",
    "content": {"application/octet-stream": {"schema": _BYTES}},
}
_BODY = {"required": False, "content": {"application/octet-stream": {"schema": _BYTES}}}


def described(method: str) -> dict[str, Any]:
    """Of the route for `method`, as FastAPI takes it."""
    extra: dict[str, Any] = {"parameters": _PARAMETERS, "security": [{"bearer": []}, {"api_key": []}]}
    return {
        "summary": f"Call a provider's API: {method}",
        "description": _DESCRIPTION,
        "responses": {**responses(*_FAILURES), 200: _ANY},
        "openapi_extra": extra if method in {"GET", "HEAD"} else {**extra, "requestBody": _BODY},
    }
