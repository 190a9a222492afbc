"""Metrics, declared once."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # a time for each series doubles their number, and nobody asks for it

REQUESTS = Counter(
    "broker_http_requests", "HTTP requests answered, by route template.", ["method", "route", "status"]
)
REQUEST_SECONDS = Histogram(
    "broker_http_request_seconds",
    "Seconds from request to answer, by route template.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
SHED = Counter(
    "broker_requests_shed", "Requests told to come back, since this replica had more to do than it can."
)
REFRESHES = Counter("broker_refreshes", "Refresh attempts that ended, by outcome.", ["provider", "outcome"])
REFRESH_SECONDS = Histogram(
    "broker_refresh_seconds",
    "Seconds a provider's token endpoint took to answer a refresh.",
    ["provider"],
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
REFRESHES_IN_FLIGHT = Gauge("broker_refreshes_in_flight", "Refreshes this replica is running now.")
REVOCATIONS = Counter(
    "broker_revocations",
    "Tries to end a deleted grant's token at its provider, by outcome: revoked, refused, postponed or given_up.",
    ["provider", "outcome"],
)
VALIDATIONS = Counter(
    "broker_validations",
    "Questions of the background whether a token works, by outcome: valid, revoked, renewed, unsettled or unanswered.",
    ["provider", "outcome"],
)
CALENDAR_SYNCS = Counter(
    "broker_calendar_syncs",
    "Syncs of a calendar, or of a list of calendars, that ended, by outcome: success, or the error_type.",
    ["provider", "outcome"],
)
WAITERS = Gauge("broker_refresh_waiters", "Requests of this replica that wait for a refresh now.")
REFRESHES_DUE = Gauge("broker_refreshes_due", "Grants that the last scheduler tick found due.")
TICK_SECONDS = Gauge("broker_scheduler_last_tick_seconds", "Seconds the last scheduler tick took.")
BREAKER_STATE = Gauge(
    "broker_breaker_state",
    "0 closed, 1 half-open, 2 open; read when scraped.",
    ["provider", "kind", "host"],
)
BREAKER_TURNS = Counter(
    "broker_breaker_turns",
    "How often a breaker of this replica turned to closed, half_open or open, of itself or told to.",
    ["provider", "kind", "state"],
)
INCIDENTS = Gauge(
    "broker_provider_incident",
    "1 while a provider calls so many grants dead that it is not believed.",
    ["provider"],
)
GRANTS = Gauge("broker_grants", "Grants that are not revoked; read when scraped.", ["provider", "health"])
SOONEST_EXPIRY = Gauge(
    "broker_soonest_expiry_seconds",
    "Seconds until the first token of an active grant ends; not a number where none will. Read when scraped.",
)
POOL_IN_USE = Gauge("broker_database_connections_in_use", "Of this replica's pool; read when scraped.")
POOL_SIZE = Gauge("broker_database_connections_max", "What the pool may open.")
JOURNAL_OUTSTANDING = Gauge(
    "broker_journal_outstanding", "Answers on disk that PostgreSQL does not have yet; read when scraped."
)
JOURNAL_WRITABLE = Gauge("broker_journal_writable", "1, or 0: nothing is refreshed at rotating providers.")
AUDIT_SEQUENCE = Gauge("broker_audit_sequence", "How many audit events are chained, since ever.")
AUDIT_UNCHAINED_SECONDS = Gauge(
    "broker_audit_unchained_seconds", "Age of the oldest audit event that is not chained yet; 0 without one."
)
DISCLOSURES_LOST = Counter(
    "broker_audit_disclosures_lost",
    "Answered tokens that could not be noted for the audit trail, because PostgreSQL was away for too long.",
)
CACHE_READS = Counter(
    "broker_cache_reads",
    "Look-ups in what is remembered, by outcome: hit, miss or stale.",
    ["cache", "outcome"],
)
CACHE_ENTRIES = Gauge("broker_cache_entries", "How much is remembered.", ["cache"])
PROXY_CACHE = Counter(
    "broker_proxy_cache",
    "Calls of the gateway by what its cache came to: hit, miss, coalesced or bypass; and besides revalidated and evicted.",
    ["provider", "outcome"],
)
PROXY_CACHE_BYTES = Gauge("broker_proxy_cache_bytes", "Of answers that the gateway keeps on this replica.")
PROXY_CACHE_ENTRIES = Gauge("broker_proxy_cache_entries", "How many answers those are.")
REWRAPPED = Counter(
    "broker_rewrapped_rows", "Rows whose secrets were sealed anew under the present data key."
)
PUSH_CHANNELS = Counter(
    "broker_calendar_channels",
    "What became of channels that providers tell of changes by: opened, renewed, closed, lost, refused or failed.",
    ["provider", "outcome"],
)
PUSH_NOTIFICATIONS = Counter(
    "broker_calendar_notifications",
    "What came by them, believed or refused.",
    ["provider", "outcome"],
)
DELIVERY_ATTEMPTS = Counter(
    "broker_delivery_attempts",
    "Attempts to deliver a call to a provider's API, by what came of it: delivered, or the category of the failure.",
    ["provider", "category"],
)
DELIVERIES_ENDED = Counter(
    "broker_deliveries_ended",
    "Deliveries that this replica brought to an end: delivered, dead, cancelled, or split into halves that go on.",
    ["provider", "status"],
)
DELIVERY_WAIT_SECONDS = Histogram(
    "broker_delivery_wait_seconds",
    "Seconds from when a delivery was due until this replica took it.",
    ["provider"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800),
)
DELIVERIES_SENDING = Gauge("broker_deliveries_sending", "Deliveries this replica is sending now.")
API_WAIT_SECONDS = Counter(
    "broker_api_wait_seconds", "Seconds that calls waited for their turn at a provider's API.", ["provider"]
)
API_REFUSALS = Counter(
    "broker_api_rate_refusals",
    "Calls that were not made, since their turn at a provider's API would have come too late.",
    ["provider"],
)
PROXIED = Counter(
    "broker_proxied",
    "Calls of providers' APIs made for others that ended, by outcome: 2xx to 5xx, a problem's code, broken_off or hung_up.",
    ["provider", "outcome"],
)
BUILD = Gauge("broker_build_info", "1, with the version that runs.", ["version"])

SECURITY_EVENTS = Counter("broker_security_events", "What a security team watches, by event.", ["event"])
