"""The examples of the OpenAPI document: one user, one grant, one day, so that they fit together.

They are here and not with the models because FastAPI leaves out of a schema whatever is null, in examples, too.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from app.api import examples_calendar, examples_deliveries
from app.api.examples_shared import CURSOR

REQUEST_ID = "5f0c1b1e8d6a4f0fa4f0c5b1e8d65f0c"
GRANT_ID = "01a1f82f-1e80-7000-8000-000000000001"  # of the time in `created_at`, as UUIDv7 are

_GRANT: JsonValue = {
    "id": GRANT_ID,
    "provider": "google",
    "user_id": "user-42",
    "account": "default",
    "status": "active",
    "health": "healthy",
    "scope": "openid email",
    "expires_at": "2026-11-22T10:59:59Z",
    "next_refresh_at": "2026-11-22T10:47:59Z",
    "generation": 3,
    "refresh_count": 2,
    "refreshing": False,
    "last_refreshed_at": "2026-11-22T10:00:00Z",
    "last_used_at": None,
    "last_validated_at": None,
    "last_error": None,
    "reconnect_reason": None,
    "predicted_death_at": None,
    "metadata": {"team": "sales"},
    "created_at": "2026-11-20T09:00:00Z",
    "updated_at": "2026-11-22T10:00:00Z",
}
_IMPORT: JsonValue = {
    "access_token": "ya29.a0AfH6SM",
    "refresh_token": "1//0gFu",
    "expires_in": 3599,
    "scope": "openid email",
    "metadata": {"team": "sales"},
}
_ATTEMPT: JsonValue = {
    "id": "01a202b2-c500-7000-8000-000000000001",
    "at": "2026-11-22T10:00:00Z",
    "replica": "broker-1-17-c0ffee",
    "trigger": "request",
    "outcome": "refreshed",
    "category": None,
    "provider_code": None,
    "milliseconds": 184,
    "generation": 3,
}
_TOKEN: JsonValue = {
    "access_token": "ya29.a0AfH6SM",
    "token_type": "Bearer",
    "expires_at": "2026-11-22T10:59:59Z",
    "expires_in": 3599,
    "scope": "openid email",
    "provider": "google",
    "user_id": "user-42",
    "account": "default",
    "grant_id": GRANT_ID,
    "generation": 3,
    "refreshed": True,
    "degraded": None,
}
_PROBLEM: JsonValue = {
    "type": "https://broker.example.com/problems/grant_not_found",
    "title": "No such connection",
    "status": 404,
    "detail": "This account is not connected.",
    "code": "grant_not_found",
    "retryable": False,
    "retry_after": None,
    "request_id": REQUEST_ID,
    "category": "permanent",
    "provider": "google",
    "user_id": "user-43",
}
_BATCH: JsonValue = {
    "items": [
        {"provider": "google", "user_id": "user-42"},
        {"provider": "google", "user_id": "user-43", "min_ttl": 300},
    ]
}
_BATCH_ANSWER: JsonValue = {"items": [{"status": 200, "token": _TOKEN}, {"status": 404, "problem": _PROBLEM}]}
_AUTHORIZE: JsonValue = {
    "user_id": "user-42",
    "scopes": ["openid", "email"],
    "login_hint": "ada@example.com",
}
_AUTHORIZE_ANSWER: JsonValue = {
    "authorization_url": "https://broker.example.com/connect/dGlja2V0",
    "state": "n0tVbZ1v3W2kq0JtVb8c7hQ9yR4eXsLmUuFgKpAaDdE",
    "expires_at": "2026-11-22T10:10:00Z",
}
_CONNECTION: JsonValue = {
    "grant": _GRANT,
    "health": "healthy",
    "expires_in": 3599,
    "message": "The connection to google works.",
}
_REFRESHED: JsonValue = {
    "grant_id": GRANT_ID,
    "account": "default",
    "outcome": "refreshed",
    "expires_at": "2026-11-22T10:59:59Z",
    "problem": None,
}
_PROVIDER: JsonValue = {
    "name": "google",
    "catalogue": "google",
    "display_name": "Google",
    "documentation": "https://developers.google.com/identity/protocols/oauth2/web-server",
    "registered": True,
    "connectable": True,
    "revocable": True,
    "scopes": ["openid", "email"],
    "rotation": "never",
    "access_token_lifetime_seconds": 3600,
    "unconfirmed": ["access_token.lifetime_seconds"],
}
_BREAKER: JsonValue = {
    "name": "google:token:oauth2.googleapis.com",
    "provider": "google",
    "kind": "token",
    "host": "oauth2.googleapis.com",
    "state": "open",
    "failures": 3,
    "opened_at": "2026-11-22T10:00:00Z",
    "next_probe_at": "2026-11-22T10:00:15Z",
}
_EVENT: JsonValue = {
    "id": "01a1f82f-1e80-7000-8000-000000000002",
    "at": "2026-11-20T09:00:00Z",
    "actor": "reports",
    "action": "grant.created",
    "provider": "google",
    "user_id": "user-42",
    "grant_id": GRANT_ID,
    "request_id": REQUEST_ID,
    "sequence": 4711,
    "details": {"generation": 1},
}
_CONSUMER: dict[str, JsonValue] = {
    "name": "reports",
    "scopes": ["tokens:read"],
    "providers": ["google"],
    "users": ["acme-*"],
    "rate": {"limit": 600, "per_seconds": 60},
}
_HEALTH: JsonValue = {
    "status": "healthy",
    "version": "0.1.0",
    "replica": "broker-1-17-c0ffee",
    "uptime_seconds": 86400,
    "checks": {
        "database": {"status": "healthy", "detail": None, "facts": {"milliseconds": 0.8}},
        "encryption": {"status": "healthy", "detail": None, "facts": {}},
    },
    "timestamp": "2026-11-22T10:00:00Z",
}
_KEY: JsonValue = {
    "id": "8d6a4f0fa4f0c5b1",
    "created_at": "2026-11-20T09:00:00Z",
    "expires_at": None,
    "revoked_at": None,
    "last_used_at": "2026-11-22T10:00:00Z",
}

# By the name of the schema.
SHAPES: Mapping[str, JsonValue] = {
    **examples_calendar.SHAPES,
    **examples_deliveries.SHAPES,
    "AttemptPage": {"items": [_ATTEMPT], "next_cursor": None},
    "AuditPage": {"items": [_EVENT], "next_cursor": CURSOR},
    "AuthorizeAnswer": _AUTHORIZE_ANSWER,
    "AuthorizeBody": _AUTHORIZE,
    "BatchAnswer": _BATCH_ANSWER,
    "BatchBody": _BATCH,
    "BreakerAnswer": _BREAKER,
    "BreakerList": {"items": [_BREAKER]},
    "ConsumerAnswer": {"id": "01a1f82f-1e80-7000-8000-000000000003", **_CONSUMER},
    "ConsumerBody": _CONSUMER,
    "ConsumerPage": {
        "items": [{"id": "01a1f82f-1e80-7000-8000-000000000003", **_CONSUMER}],
        "next_cursor": None,
    },
    "ConsumerPatch": {"users": ["acme-*", "zenith-*"]},
    "Deleted": {"revoked_upstream": True},
    "GrantAnswer": _GRANT,
    "GrantBody": _IMPORT,
    "GrantPage": {"items": [_GRANT], "next_cursor": CURSOR},
    "HealthAnswer": _HEALTH,
    "KeyAnswer": {"id": "8d6a4f0fa4f0c5b1", "key": "brk_8d6a4f0fa4f0c5b1_" + "0" * 64},
    "KeyBody": {"expires_at": "2026-12-31T00:00:00Z"},
    "ListedKeyAnswer": _KEY,
    "ListedKeyPage": {"items": [_KEY], "next_cursor": None},
    "ProviderAnswer": _PROVIDER,
    "ProviderList": {"items": [_PROVIDER]},
    "RefreshBody": {"generation": 3, "reason": "401 from the calendar"},
    "RefreshTokensAnswer": {"items": [_REFRESHED], "refreshed": 1, "failed": 0},
    "RefreshTokensBody": {"user_id": "user-42"},
    "RunAnswer": {"due": 3, "refreshed": 2, "failed": 0, "postponed": 1},
    "TokenAnswer": _TOKEN,
    "UserHealth": {"items": [_CONNECTION], "overall": "healthy"},
    "ValidationAnswer": {
        "valid": True,
        "checked_by": "introspection",
        "checked_at": "2026-11-22T10:00:00Z",
    },
}
