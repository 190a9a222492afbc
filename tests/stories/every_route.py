"""Every route of the OpenAPI document, called about a grant that is named: by its key, its id, or a cursor.

`{provider}`, `{user}` and `{account}` are the grant's key; `{id}` its id, and `{cursor}` the same as a cursor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

ADMIN, NOBODYS, ABSENT, ALIKE = "admin", "nobody's", "absent", "alike"


@dataclass(frozen=True)
class Call:
    """`about` says how a consumer is answered that may not see the grant: `ADMIN` and `NOBODYS` with 403, `ABSENT` as
    what is not there, with 404 or without an item, `ALIKE` as if there were no grant at all."""

    method: str
    path: str
    about: str
    query: Mapping[str, str] | None = None
    body: Any = None
    headers: Mapping[str, str] | None = None

    def filled(self, names: Mapping[str, str]) -> tuple[str, str, Any, dict[str, str]]:
        """Method, URL, body and headers with the grant's names in their places."""
        escaped = {name: quote(value, safe="") for name, value in names.items()}
        url = self.path.format(**escaped)
        if self.query:
            url += "?" + urlencode({name: value.format(**names) for name, value in self.query.items()})
        return self.method, url, _filled(self.body, names), dict(self.headers or {})


def _filled(body: Any, names: Mapping[str, str]) -> Any:
    if body is None:
        return None
    text = json.dumps(body)
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", json.dumps(value)[1:-1])
    return json.loads(text)


_TOKEN = "/tokens/{provider}/{user}"
_GRANT = "/grants/{provider}/{user}"
_TOKENS = {"access_token": "sat_of_somebody_else", "expires_in": 300}
_ITEM = {"provider": "{provider}", "user_id": "{user}"}
_ACCOUNT = {"account": "{account}"}
_LATE = "2100-01-01T00:00:00Z"
_RIGHTS = {"name": "wider", "scopes": ["admin"]}
_CONSUMER = "/consumers/{id}"
_EVENT = "/calendar/events/7kukuqrfedlm2f9t"
_DAY = {"start": {"date": "2026-12-01"}, "end": {"date": "2026-12-02"}}
_DELIVERED = {"method": "POST", "path": "/contacts"}
_RECORDS = {"records": [1, 2], "records_per_request": 1, "concurrency": 1}
_BREAKER = "/breakers/{provider}:token:127.0.0.1"


def _get(path: str, about: str, *queries: Mapping[str, str]) -> list[Call]:
    return [Call("GET", path, about, query=query) for query in queries or ({},)]


# By operation id.
CALLS: dict[str, list[Call]] = {
    "get_token": _get(
        _TOKEN,
        ABSENT,
        {},
        _ACCOUNT,
        {**_ACCOUNT, "min_ttl": "0"},
        {**_ACCOUNT, "min_ttl": "86400", "wait": "0"},
        {**_ACCOUNT, "scope": "foreign.scope none.such"},
    ),
    "refresh_token": [
        Call("POST", f"{_TOKEN}/refresh", ABSENT, body=body)
        for body in (None, _ACCOUNT, {**_ACCOUNT, "generation": 1}, {**_ACCOUNT, "generation": 99})
    ],
    "get_tokens": [
        Call("POST", "/tokens/batch", ABSENT, body={"items": [item]})
        for item in (_ITEM, {**_ITEM, **_ACCOUNT}, {**_ITEM, **_ACCOUNT, "min_ttl": 0, "scope": "none.such"})
    ],
    "validate_token": [Call("POST", f"{_TOKEN}/validate", ABSENT, query=_ACCOUNT)],
    "put_grant": [
        Call("PUT", _GRANT, NOBODYS, body={**_TOKENS, **_ACCOUNT}, headers=headers)
        for headers in ({}, {"If-Match": '"1"'}, {"If-Match": '"99"'})
    ],
    "list_grants": _get(
        "/grants",
        ALIKE,
        {},
        {"limit": "1"},
        {"provider": "{provider}"},
        {"status": "active"},
        {"status": "reconnect_required"},
        {"expires_before": _LATE},
        {"cursor": "{cursor}"},
    )
    + _get("/grants", ABSENT, {"user_id": "{user}", "provider": "{provider}"}),
    "get_grant": _get("/grants/{id}", ABSENT),
    "get_history": _get("/grants/{id}/history", ABSENT, {}, {"limit": "1"}, {"cursor": "{cursor}"}),
    "delete_grant": [Call("DELETE", _GRANT, ABSENT, query=query) for query in ({}, _ACCOUNT)],
    "authorize": [
        Call("POST", "/oauth/{provider}/authorize", NOBODYS, body={"user_id": "{user}", **_ACCOUNT})
    ],
    "callback": _get("/oauth/{provider}/callback", ALIKE, {}, {"state": "{id}", "code": "a-code"}),
    "connect": _get("/connect/{id}", ALIKE) + _get("/connect/{cursor}", ALIKE),
    "hear_calendar_change": [
        Call("POST", "/calendar/webhooks/microsoft", ALIKE, body={"value": [{"subscriptionId": "{id}"}]}),
        Call("POST", "/calendar/webhooks/{provider}", ALIKE),
    ],
    "refresh_tokens": [Call("POST", "/oauth/{provider}/refresh-tokens", ABSENT, body={"user_id": "{user}"})],
    "get_provider_health": _get("/oauth/{provider}/health-check", ABSENT, {"user_id": "{user}"}),
    "get_user_health": _get("/users/{user}/health-check", ALIKE),
    "create_event": [
        Call("POST", "/calendar/events", ABSENT, body={**_ITEM, **which, **_DAY}) for which in ({}, _ACCOUNT)
    ],
    "change_event": [
        Call("PATCH", _EVENT, ABSENT, body={**_ITEM, **which, "title": "x"}, headers=headers)
        for which in ({}, _ACCOUNT)
        for headers in ({}, {"If-Match": '"1"'})
    ],
    "delete_event": [Call("DELETE", _EVENT, ABSENT, query={**_ITEM, **which}) for which in ({}, _ACCOUNT)],
    "sync_calendars": [
        Call("POST", "/calendar/sync", ABSENT, body={**_ITEM, **which}) for which in ({}, _ACCOUNT)
    ],
    "auto_sync_calendars": [
        Call("POST", "/calendar/sync/auto", ALIKE, body={**_ITEM, **which}) for which in ({}, _ACCOUNT)
    ],
    "list_calendars": _get("/calendar/calendars", ALIKE, _ITEM, {"user_id": "{user}"}),
    "list_events": _get(
        "/calendar/events", ALIKE, {**_ITEM, "from": "2026-12-01T00:00:00Z", "to": "2026-12-31T00:00:00Z"}
    ),
    "list_calendar_runs": _get("/calendar/runs", ALIKE, _ITEM, {"user_id": "{user}", "cursor": "{cursor}"}),
    "list_providers": _get("/providers", ALIKE),
    "get_provider": _get("/providers/{provider}", ALIKE),
    "put_client": [Call("PUT", "/clients/{provider}", ADMIN, body={"catalogue": "keeps", "client_id": "x"})],
    "get_client": _get("/clients/{provider}", ADMIN),
    "delete_client": [Call("DELETE", "/clients/{provider}", ADMIN)],
    "create_consumer": [Call("POST", "/consumers", ADMIN, body=_RIGHTS)],
    "list_consumers": _get("/consumers", ADMIN, {}, {"cursor": "{cursor}"}),
    "change_consumer": [Call("PATCH", _CONSUMER, ADMIN, body={"users": ["*"]})],
    "delete_consumer": [Call("DELETE", _CONSUMER, ADMIN)],
    "list_keys": _get(f"{_CONSUMER}/keys", ADMIN),
    "create_key": [Call("POST", f"{_CONSUMER}/keys", ADMIN)],
    "delete_key": [Call("DELETE", f"{_CONSUMER}/keys/0123456789abcdef", ADMIN)],
    "run_refresh": [Call("POST", "/refresh/run", ADMIN)],
    "list_breakers": _get("/breakers", ADMIN),
    "reset_breaker": [Call("POST", f"{_BREAKER}/reset", ADMIN)],
    "open_breaker": [Call("POST", f"{_BREAKER}/open", ADMIN)],
    "get_cache": _get("/cache", ADMIN),
    "purge_cache": [
        Call(
            "DELETE",
            "/cache",
            ALIKE,
            query={"provider": "{provider}", "user_id": "{user}", "account": "{account}"},
        )
    ],
    "list_audit": _get(
        "/audit", ADMIN, {}, {"grant_id": "{id}"}, {"user_id": "{user}", "limit": "1"}, {"cursor": "{cursor}"}
    ),
    "create_delivery": [
        Call("POST", "/deliveries", ABSENT, body={**_ITEM, **which, **_DELIVERED}, headers=headers)
        for which in ({}, _ACCOUNT)
        for headers in ({}, {"Idempotency-Key": "same"})
    ],
    "create_delivery_batch": [
        Call("POST", "/deliveries/batches", ABSENT, body={**_ITEM, **which, **_DELIVERED, **_RECORDS})
        for which in ({}, _ACCOUNT)
    ],
    "list_deliveries": _get("/deliveries", ALIKE, {}, _ITEM, {"batch_id": "{id}"}, {"cursor": "{cursor}"}),
    "get_delivery": _get("/deliveries/{id}", ALIKE),
    "replay_delivery": [Call("POST", "/deliveries/{id}/replay", ALIKE)],
    "cancel_delivery": [Call("POST", "/deliveries/{id}/cancel", ALIKE)],
    "list_delivery_batches": _get("/deliveries/batches", ALIKE, {}, _ITEM, {"cursor": "{cursor}"}),
    "get_delivery_batch": _get("/deliveries/batches/{id}", ALIKE),
    "watch_delivery_batch": _get("/deliveries/batches/{id}/events", ALIKE),
    "replay_delivery_batch": [Call("POST", "/deliveries/batches/{id}/replay", ALIKE)],
    "cancel_delivery_batch": [Call("POST", "/deliveries/batches/{id}/cancel", ALIKE)],
    "get_retry_metrics": _get("/retry/metrics", ALIKE),
    "run_cron": [Call("POST", "/cron/retry-failed", ALIKE)],
    "live": _get("/health-check/live", ALIKE),
    "ready": _get("/health-check/ready", ALIKE),
    "metrics": _get("/metrics", ALIKE),  # with BROKER_METRICS_KEY, which no consumer has
}
for _method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
    CALLS[f"proxy_{_method.lower()}"] = [
        Call(_method, "/proxy/{provider}/{user}/things", ABSENT),
        Call(_method, "/proxy/{provider}/{user}/things", ABSENT, headers={"X-Broker-Retry": "0"}),
    ]
# For operators and without a key: counts over all grants, and when the first of all tokens ends. Names nothing of one.
COUNTS = {"health_check": _get("/health-check", ALIKE)}
