"""What the service's own role may do in the database, where migrations run as another one. Nothing more than it does:

it owns nothing, so it alters, truncates and drops nothing; what is append-only it can only add to; and what is pruned is
pruned by functions that judge for themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_READ, _ADD, _CHANGE, _TAKE = "SELECT", "INSERT", "UPDATE", "DELETE"

TABLES: Mapping[str, tuple[str, ...]] = {
    "alembic_version": (_READ,),
    "api_keys": (_READ, _ADD, _CHANGE),
    "api_rates": (_READ, _ADD, _CHANGE, _TAKE),
    "audit_beginning": (_READ,),
    "audit_chain": (_READ, _ADD),
    "audit_events": (_READ, _ADD),
    "audit_head": (_READ, _CHANGE),
    "audit_retention": (_READ,),
    "audit_unchained": (_READ, _TAKE),
    "authorization_requests": (_READ, _ADD, _CHANGE, _TAKE),
    "breakers": (_READ, _ADD, _CHANGE),
    "calendar_accounts": (_READ, _ADD, _CHANGE, _TAKE),
    "calendar_events": (_READ, _ADD, _CHANGE, _TAKE),
    "calendar_sync_states": (_READ, _ADD, _CHANGE, _TAKE),
    "calendars": (_READ, _ADD, _CHANGE, _TAKE),
    "consumers": (_READ, _ADD, _CHANGE, _TAKE),
    "data_keys": (_READ, _ADD, "UPDATE (key_encryption_key, wrapped_key, seals, emptied_at)"),
    "deliveries": (_READ, _ADD, _CHANGE, _TAKE),
    "delivery_attempts": (_READ, _ADD, "UPDATE (status, category, code, milliseconds)", _TAKE),
    "delivery_batches": (_READ, _ADD, _CHANGE, _TAKE),
    "grant_candidates": (_READ, _ADD, _CHANGE, _TAKE),
    "grants": (_READ, _ADD, _CHANGE),
    "idempotency_keys": (_READ, _ADD, _CHANGE, _TAKE),
    "oauth_clients": (_READ, _ADD, _CHANGE),
    "provider_incidents": (_READ, _ADD, _CHANGE),
    "push_channels": (_READ, _ADD, _CHANGE, _TAKE),
    "rate_limits": (_READ, _ADD, _CHANGE),
    "refresh_attempts": (_READ, _ADD),
    "revocations": (_READ, _ADD, _CHANGE, _TAKE),
    "sync_runs": (_READ, _ADD, _TAKE),
    "validation_turns": (_READ, _ADD, _CHANGE),
}
FUNCTIONS = ("prune_audit(timestamptz, integer)",)


def statements(role: str, schema: str) -> Iterator[str]:
    """SQL that gives `role` this, and nothing else, in the `schema` that the tables are in."""
    name, within = quoted(role), quoted(schema)
    yield f"REVOKE ALL ON ALL TABLES IN SCHEMA {within} FROM {name}"
    yield f"REVOKE CREATE ON SCHEMA {within} FROM {name}"
    yield f"GRANT USAGE ON SCHEMA {within} TO {name}"
    for table, privileges in TABLES.items():
        yield f"GRANT {', '.join(privileges)} ON {table} TO {name}"
    for function in FUNCTIONS:
        yield f"GRANT EXECUTE ON FUNCTION {function} TO {name}"


def quoted(name: str) -> str:
    """An identifier as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'
