"""Of the OpenAPI document's examples, those of deliveries."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from app.api.examples_shared import CURSOR

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
        "query": None,
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

SHAPES: Mapping[str, JsonValue] = {
    "BatchDecision": {"records": 10, "batch": _DELIVERY_BATCH},
    "CronAnswer": {"claimed": 12, "delivered": 11, "dead": 0, "released_stuck": 1},
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
    "DeliveryPage": {"items": [_DELIVERY], "next_cursor": CURSOR},
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
}
