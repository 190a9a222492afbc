"""The schema, which migrations are compared with. Times are timestamptz, ciphertexts are `sealed_*` bytea.

Rules that the database can hold are held by it. Only stores, `app.db` and migrations import this package.
"""

from app.tables.access import (
    api_keys,
    authorization_requests,
    breakers,
    consumers,
    data_keys,
    oauth_clients,
    rate_limits,
)
from app.tables.audit import (
    audit_beginning,
    audit_chain,
    audit_events,
    audit_head,
    audit_retention,
    audit_unchained,
)
from app.tables.base import metadata
from app.tables.calendars import (
    calendar_accounts,
    calendar_events,
    calendar_sync_states,
    calendars,
    push_channels,
    sync_runs,
)
from app.tables.deliveries import (
    api_rates,
    deliveries,
    delivery_attempts,
    delivery_batches,
    idempotency_keys,
)
from app.tables.grants import (
    grant_candidates,
    grants,
    provider_incidents,
    refresh_attempts,
    revocations,
    validation_turns,
)

__all__ = [
    "api_keys",
    "api_rates",
    "audit_beginning",
    "audit_chain",
    "audit_events",
    "audit_head",
    "audit_retention",
    "audit_unchained",
    "authorization_requests",
    "breakers",
    "calendar_accounts",
    "calendar_events",
    "calendar_sync_states",
    "calendars",
    "consumers",
    "data_keys",
    "deliveries",
    "delivery_attempts",
    "delivery_batches",
    "grant_candidates",
    "grants",
    "idempotency_keys",
    "metadata",
    "oauth_clients",
    "provider_incidents",
    "push_channels",
    "rate_limits",
    "refresh_attempts",
    "revocations",
    "sync_runs",
    "validation_turns",
]
