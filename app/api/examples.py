"""The examples of the OpenAPI document: one user, one grant, one day, so that they fit together.

They are here and not with the models because FastAPI leaves out of a schema whatever is null, in examples, too.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

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
_EVENT_START: JsonValue = {"date_time": "2026-12-01T08:00:00Z", "time_zone": "Europe/Berlin"}
_EVENT_END: JsonValue = {"date_time": "2026-12-01T09:00:00Z", "time_zone": "Europe/Berlin"}
_NEW_EVENT: JsonValue = {
    "user_id": "user-42",
    "provider": "google",
    "id": "visit-7",
    "title": "Dentist",
    "location": "Baker Street 221b",
    "start": _EVENT_START,
    "end": _EVENT_END,
    "attendees": ["bob@example.com"],
}
_CALENDAR_EVENT: dict[str, JsonValue] = {
    "id": "7kukuqrfedlm2f9t",
    "calendar_id": "ada@example.com",
    "provider": "google",
    "account": "default",
    "title": "Dentist",
    "description": None,
    "location": "Baker Street 221b",
    "status": "confirmed",
    "start": {"date": None, "date_time": "2026-12-01T08:00:00Z", "time_zone": "Europe/Berlin"},
    "end": {"date": None, "date_time": "2026-12-01T09:00:00Z", "time_zone": "Europe/Berlin"},
    "all_day": False,
    "recurring_event_id": None,
    "original_start": None,
    "recurrence": [],
    "etag": '"3181161784712000"',
    "updated_at": "2026-11-22T10:00:00Z",
    "organizer": {"email": "ada@example.com", "name": "Ada", "reply": None},
    "attendees": [{"email": "bob@example.com", "name": None, "reply": "needs_action"}],
    "html_link": "https://www.google.com/calendar/event?eid=7kukuqrfedlm2f9t",
}
_SYNCED: JsonValue = {
    "id": "ada@example.com",
    "name": "Ada",
    "provider": "google",
    "account": "default",
    "status": "success",
    "mode": "incremental",
    "added": 1,
    "updated": 2,
    "deleted": 0,
    "rebuilt": False,
    "error": None,
}
_SYNC: dict[str, JsonValue] = {
    "status": "success",
    "message": "Your Google Calendar is up to date.",
    "error_type": None,
    "calendars": [_SYNCED],
    "run_id": "01a202b2-c500-7000-8000-000000000003",
}
_CALENDAR: JsonValue = {
    "id": "ada@example.com",
    "name": "Ada",
    "provider": "google",
    "account": "default",
    "time_zone": "Europe/Berlin",
    "access_role": "owner",
    "primary": True,
    "last_synced_at": "2026-11-22T10:00:00Z",
    "last_full_sync_at": "2026-11-20T09:00:00Z",
    "next_sync_at": "2026-11-22T10:15:00Z",
    "failures": 0,
    "error_type": None,
}
_OCCURRENCE: JsonValue = {**_CALENDAR_EVENT, "partly_read": False}
_SYNC_RUN: JsonValue = {
    "provider": "google",
    "account": "default",
    "trigger": "scheduler",
    "started_at": "2026-11-22T10:00:00Z",
    "ended_at": "2026-11-22T10:00:01Z",
    **_SYNC,
}
_CALL: dict[str, JsonValue] = {
    "provider": "hubspot",
    "user_id": "user-42",
    "account": "default",
    "method": "POST",
    "path": "/crm/v3/objects/contacts",
}
_DELIVERY: dict[str, JsonValue] = {
    "id": "01a202b2-c500-7000-8000-000000000004",
    "status": "retrying",
    "attempts": 1,
    "max_attempts": 8,
    "category": "rate_limit",
    "code": "http_429",
    "last_status": 429,
    "next_attempt_at": "2026-11-22T10:00:05Z",
    **_CALL,
    "retry_on": [],
    "batch_id": None,
    "parent_id": None,
    "first_record": None,
    "records": 1,
    "created_at": "2026-11-22T10:00:00Z",
    "updated_at": "2026-11-22T10:00:01Z",
    "ended_at": None,
    "response": None,
}
_DELIVERY_DETAIL: JsonValue = {
    **_DELIVERY,
    "history": [
        {
            "number": 1,
            "at": "2026-11-22T10:00:00Z",
            "milliseconds": 184,
            "status": 429,
            "category": "rate_limit",
            "code": "http_429",
            "replica": "broker-1-17-c0ffee",
        }
    ],
    "request": {
        "headers": {"content-type": "application/json"},
        "body": {"properties": {"email": "ada@example.com", "api_token": "[redacted]"}},
    },
    "response": {
        "status": 429,
        "headers": {"retry-after": "5"},
        "body": {"message": "Too many requests"},
        "is_cut": False,
    },
}
_DELIVERY_BATCH: JsonValue = {
    "id": "01a202b2-c500-7000-8000-000000000006",
    "status": "sending",
    "total": 10000,
    "queued": 4000,
    "sending": 400,
    "retrying": 100,
    "delivered": 5490,
    "dead": 10,
    "cancelled": 0,
    "items_url": "https://broker.example.com/api/v1/deliveries?batch_id=01a202b2-c500-7000-8000-000000000006",
    "events_url": "https://broker.example.com/api/v1/deliveries/batches/01a202b2-c500-7000-8000-000000000006/events",
    **_CALL,
    "records_per_request": 100,
    "concurrency": 4,
    "wrap": "inputs",
    "created_at": "2026-11-22T10:00:00Z",
    "cancelled_at": None,
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
_CURSOR = "AaH4Lx6AcACAAAAAAAAAAQ"
_KEY: JsonValue = {
    "id": "8d6a4f0fa4f0c5b1",
    "created_at": "2026-11-20T09:00:00Z",
    "expires_at": None,
    "revoked_at": None,
    "last_used_at": "2026-11-22T10:00:00Z",
}

# By the name of the schema.
SHAPES: Mapping[str, JsonValue] = {
    "AttemptPage": {"items": [_ATTEMPT], "next_cursor": None},
    "AuditPage": {"items": [_EVENT], "next_cursor": _CURSOR},
    "AuthorizeAnswer": _AUTHORIZE_ANSWER,
    "AuthorizeBody": _AUTHORIZE,
    "AutoSyncBody": {"user_id": "user-42", "min_interval": 300},
    "BatchAnswer": _BATCH_ANSWER,
    "BatchBody": _BATCH,
    "BatchDecision": {"records": 10, "batch": _DELIVERY_BATCH},
    "BreakerAnswer": _BREAKER,
    "BreakerList": {"items": [_BREAKER]},
    "CalendarAnswer": _CALENDAR,
    "CalendarPage": {"items": [_CALENDAR], "next_cursor": None},
    "CalendarRunAnswer": _SYNC_RUN,
    "CalendarRunPage": {"items": [_SYNC_RUN], "next_cursor": _CURSOR},
    "ConsumerAnswer": {"id": "01a1f82f-1e80-7000-8000-000000000003", **_CONSUMER},
    "ConsumerBody": _CONSUMER,
    "ConsumerPage": {
        "items": [{"id": "01a1f82f-1e80-7000-8000-000000000003", **_CONSUMER}],
        "next_cursor": None,
    },
    "ConsumerPatch": {"users": ["acme-*", "zenith-*"]},
    "CronAnswer": {"claimed": 12, "delivered": 11, "dead": 0, "released_stuck": 1},
    "Deleted": {"revoked_upstream": True},
    "DeliveryAnswer": _DELIVERY,
    "DeliveryBatchAnswer": _DELIVERY_BATCH,
    "DeliveryBatchBody": {
        **_CALL,
        "path": "/crm/v3/objects/contacts/batch/create",
        "records": [
            {"properties": {"email": "ada@example.com"}},
            {"properties": {"email": "bob@example.com"}},
        ],
        "records_per_request": 100,
        "concurrency": 4,
        "wrap": "inputs",
    },
    "DeliveryBatchPage": {"items": [_DELIVERY_BATCH], "next_cursor": None},
    "DeliveryBody": {**_CALL, "body": {"properties": {"email": "ada@example.com"}}},
    "DeliveryDetail": _DELIVERY_DETAIL,
    "DeliveryPage": {"items": [_DELIVERY], "next_cursor": _CURSOR},
    "EventAnswer": _CALENDAR_EVENT,
    "EventBody": _NEW_EVENT,
    "EventPatch": {"user_id": "user-42", "title": "Dentist, at last", "location": None},
    "GrantAnswer": _GRANT,
    "GrantBody": _IMPORT,
    "GrantPage": {"items": [_GRANT], "next_cursor": _CURSOR},
    "HealthAnswer": _HEALTH,
    "KeyAnswer": {"id": "8d6a4f0fa4f0c5b1", "key": "brk_8d6a4f0fa4f0c5b1_" + "0" * 64},
    "KeyBody": {"expires_at": "2026-12-31T00:00:00Z"},
    "ListedKeyAnswer": _KEY,
    "ListedKeyPage": {"items": [_KEY], "next_cursor": None},
    "OccurrenceAnswer": _OCCURRENCE,
    "OccurrencePage": {"items": [_OCCURRENCE], "next_cursor": None},
    "ProviderAnswer": _PROVIDER,
    "ProviderList": {"items": [_PROVIDER]},
    "RefreshBody": {"generation": 3, "reason": "401 from the calendar"},
    "RefreshTokensAnswer": {"items": [_REFRESHED], "refreshed": 1, "failed": 0},
    "RefreshTokensBody": {"user_id": "user-42"},
    "RetryMetrics": {
        "since": None,
        "accepted": 1200,
        "delivered": 1190,
        "success_rate": 0.9983,
        "attempts_per_delivery": 1.12,
        "attempts_p95": 2,
        "errors_by_category": {"rate_limit": 8, "validation": 2},
        "pending": 8,
        "oldest_pending_seconds": 40,
        "dead": 2,
    },
    "RunAnswer": {"due": 3, "refreshed": 2, "failed": 0, "postponed": 1},
    "SyncAnswer": {**_SYNC, "next": "2026-11-22T10:15:00Z"},
    "SyncBody": {"user_id": "user-42", "provider": "google", "calendar_ids": ["primary"]},
    "TokenAnswer": _TOKEN,
    "UserHealth": {"items": [_CONNECTION], "overall": "healthy"},
    "ValidationAnswer": {
        "valid": True,
        "checked_by": "introspection",
        "checked_at": "2026-11-22T10:00:00Z",
    },
}
