"""The schema, which migrations are compared with. Times are timestamptz, ciphertexts are `sealed_*` bytea.

Rules that the database can hold are held by it. Only stores, `app.db` and migrations import this module.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION, JSONB, UUID

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "ix": "%(table_name)s_%(column_0_name)s_idx",
        "uq": "%(table_name)s_%(column_0_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

_now = text("clock_timestamp()")
_empty_object = text("'{}'::jsonb")


def _time(name: str, *, required: bool = False) -> Column[object]:
    return Column(
        name, DateTime(timezone=True), nullable=not required, server_default=_now if required else None
    )


grants = Table(
    "grants",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("account", Text, nullable=False, server_default="default"),
    Column("status", Text, nullable=False, server_default="active"),
    Column("reconnect_reason", Text),
    Column("lineage_id", UUID, nullable=False),  # a new one at each connect or import
    Column("generation", BigInteger, nullable=False, server_default="1"),  # one more with each token set
    Column("sealed_access_token", LargeBinary),
    Column("sealed_refresh_token", LargeBinary),
    Column("refresh_fingerprint", LargeBinary),  # SHA-256 of the refresh token, null without one
    Column("token_type", Text, nullable=False, server_default="Bearer"),
    Column("scope", Text),
    _time("expires_at"),  # null: never expires
    Column(
        "issued_ttl_seconds", DOUBLE_PRECISION
    ),  # what the last refresh had left when it was committed; null before
    _time("refresh_expires_at"),
    _time("next_refresh_at"),
    # The claim of the refresh that is running or whose outcome is unknown.
    Column("epoch", BigInteger, nullable=False, server_default="0"),
    Column("attempt_id", UUID),
    Column("owner", Text),
    _time("lease_until"),
    _time("takeover_at"),
    Column(
        "may_be_spent", Boolean, nullable=False, server_default=text("false")
    ),  # how an earlier attempt with this refresh token ended was never known
    _time("refused_at"),  # when the provider first called this refresh token dead
    _time("probe_at"),  # when a dead one is tried once more
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("last_error", JSONB(none_as_null=True)),
    _time("last_error_at"),
    Column("refresh_count", BigInteger, nullable=False, server_default="0"),
    _time("last_refreshed_at"),
    _time("last_used_at"),
    _time("last_validated_at"),
    _time("unasked_since"),  # the background's questions whether its access token works are counted from here
    Column("denied_generation", BigInteger),  # the one whose access token the last of them called bad
    Column("metadata", JSONB, nullable=False, server_default=_empty_object),
    _time("created_at", required=True),
    _time("updated_at", required=True),
    CheckConstraint("status IN ('active', 'reconnect_required', 'revoked')", name="status"),
    CheckConstraint(
        "(status = 'reconnect_required') = (reconnect_reason IS NOT NULL)", name="reconnect_reason"
    ),
    CheckConstraint("char_length(user_id) BETWEEN 1 AND 255", name="user_id"),
    CheckConstraint("char_length(account) BETWEEN 1 AND 255", name="account"),
    CheckConstraint(
        "status <> 'revoked' OR (sealed_access_token IS NULL AND sealed_refresh_token IS NULL)",
        name="revoked_is_empty",
    ),
    CheckConstraint(
        "(sealed_refresh_token IS NULL) = (refresh_fingerprint IS NULL)", name="refresh_fingerprint"
    ),
    CheckConstraint("(attempt_id IS NULL) = (takeover_at IS NULL)", name="claim_is_whole"),
    Index(
        "grants_key_idx",
        "provider",
        "user_id",
        "account",
        unique=True,
        postgresql_where=text("status <> 'revoked'"),
    ),
    Index(
        "grants_provider_due_idx",
        "provider",
        "next_refresh_at",
        postgresql_where=text("status = 'active' AND next_refresh_at IS NOT NULL"),
    ),
    Index(
        "grants_refresh_fingerprint_idx",
        "refresh_fingerprint",
        postgresql_where=text("refresh_fingerprint IS NOT NULL"),
    ),
    Index("grants_refused_idx", "provider", "refused_at", postgresql_where=text("refused_at IS NOT NULL")),
    Index("grants_probe_idx", "probe_at", postgresql_where=text("probe_at IS NOT NULL")),
    Index(
        "grants_unasked_idx",
        "provider",
        text("GREATEST(created_at, last_refreshed_at, unasked_since)"),
        postgresql_where=text(
            "status = 'active' AND failures = 0 AND (refresh_fingerprint IS NOT NULL OR expires_at IS NULL)"
        ),
    ),
    postgresql_with={"fillfactor": "80"},
)

validation_turns = Table(  # when providers are next asked about tokens, and how they answered last
    "validation_turns",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("next_at", DateTime(timezone=True), nullable=False),
    Column("denials", DOUBLE_PRECISION, nullable=False, server_default="0"),
    Column("silences", Integer, nullable=False, server_default="0"),
)

refresh_attempts = Table(
    "refresh_attempts",
    metadata,
    Column(
        "id", UUID, primary_key=True
    ),  # the attempt id of the claim: a commit that repeats itself is found out
    Column("grant_id", UUID, ForeignKey("grants.id", ondelete="CASCADE"), nullable=False),
    Column("provider", Text),  # null: recorded before the column was there
    Column("lineage_id", UUID, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("replica", Text, nullable=False),
    Column("trigger", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("category", Text),
    Column("provider_code", Text),
    Column("milliseconds", Integer, nullable=False),
    Column("generation", BigInteger, nullable=False),  # the one it led to, or left in place
    Column("spent_fingerprint", LargeBinary),  # of the refresh token that a rotation replaced
    _time("at", required=True),
    CheckConstraint("outcome IN ('refreshed', 'failed', 'unknown', 'dead')", name="outcome"),
    Index("refresh_attempts_grant_idx", "grant_id", "at"),
    Index("refresh_attempts_at_idx", "at", postgresql_using="brin", postgresql_with={"autosummarize": "on"}),
)

grant_candidates = (
    Table(  # answers with a new refresh token that T2 refused, though the lineage is the present one
        "grant_candidates",
        metadata,
        Column("id", UUID, primary_key=True),  # the attempt that brought it
        Column("grant_id", UUID, ForeignKey("grants.id", ondelete="CASCADE"), nullable=False),
        Column("lineage_id", UUID, nullable=False),
        Column("base_fingerprint", LargeBinary),  # of the refresh token that it was given for
        Column("sealed_tokens", LargeBinary, nullable=False),
        Column("sent_at", DateTime(timezone=True), nullable=False),
        _time("created_at", required=True),
        Index("grant_candidates_grant_idx", "grant_id", "created_at"),
        Index("grant_candidates_created_idx", "created_at"),
    )
)

provider_incidents = Table(  # times in which a provider called so many grants dead that it is not believed
    "provider_incidents",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("refused", Integer, nullable=False),  # grants, when it was opened
    Column("recovered", Integer, nullable=False, server_default="0"),  # of all that were refused, since
    Column("replica", Text, nullable=False),
    Column("opened_at", DateTime(timezone=True), nullable=False),
    _time("cleared_at"),
    Index(
        "provider_incidents_open_idx", "provider", unique=True, postgresql_where=text("cleared_at IS NULL")
    ),
)

revocations = Table(  # of deleted grants, until the provider has confirmed them
    "revocations",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("grant_id", UUID, ForeignKey("grants.id", ondelete="CASCADE"), nullable=False),
    Column("provider", Text, nullable=False),
    Column("token_type_hint", Text, nullable=False),
    Column("sealed_token", LargeBinary, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", DateTime(timezone=True), nullable=False),
    _time("created_at", required=True),
    CheckConstraint("token_type_hint IN ('refresh_token', 'access_token')", name="token_type_hint"),
    Index("revocations_next_attempt_idx", "next_attempt_at"),
    Index("revocations_grant_idx", "grant_id"),
)

authorization_requests = Table(
    "authorization_requests",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("state_sha256", LargeBinary, nullable=False, unique=True),
    Column("provider", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("redirect_uri", Text, nullable=False),
    Column("return_to", Text),
    Column("login_hint", Text),
    Column("sealed_code_verifier", LargeBinary, nullable=False),
    Column("browser_bound", Boolean, nullable=False),
    Column("browser_sha256", LargeBinary),
    _time("created_at", required=True),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    _time("used_at"),
    Index("authorization_requests_expires_idx", "expires_at"),
)

oauth_clients = Table(
    "oauth_clients",
    metadata,
    Column("name", Text, primary_key=True),  # what callers call `{provider}`
    Column("id", UUID, nullable=False, unique=True),
    Column("catalogue", Text, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("sealed_client_secret", LargeBinary),
    Column("scopes", ARRAY(Text)),
    Column("settings", JSONB, nullable=False, server_default=_empty_object),
    Column("generation", BigInteger, nullable=False, server_default="1"),
    _time("created_at", required=True),
    _time("updated_at", required=True),
    _time("removed_at"),  # its grants are there still, so the name stays that of its catalogue entry
    CheckConstraint("removed_at IS NULL OR sealed_client_secret IS NULL", name="removed_is_empty"),
)

breakers = Table(  # the last turn of each
    "breakers",
    metadata,
    Column("name", Text, primary_key=True),  # `provider:kind:host`
    Column("provider", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("turned_at", DateTime(timezone=True), nullable=False),
    _time("since"),  # when the row of openings began that this one belongs to
    _time("next_probe_at"),
    Column("cooldown_seconds", DOUBLE_PRECISION),
    Column("operator", Text),  # null: a replica came to it by what it met itself
    Column("replica", Text, nullable=False),
    CheckConstraint("state IN ('closed', 'open')", name="state"),
    CheckConstraint(
        "num_nonnulls(since, next_probe_at, cooldown_seconds) = CASE state WHEN 'open' THEN 3 ELSE 0 END",
        name="open_is_whole",
    ),
)

data_keys = Table(
    "data_keys",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("key_encryption_key", Text, nullable=False),  # the id of the key that wraps it
    Column("wrapped_key", LargeBinary, nullable=False),
    _time("created_at", required=True),
    _time("active_at", required=True),  # it seals from then on
    Column("seals", BigInteger, nullable=False, server_default="0"),  # how many values, about
    _time("emptied_at"),  # nothing is sealed under it any more
)

consumers = Table(
    "consumers",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("providers", ARRAY(Text)),  # null: all
    Column("users", ARRAY(Text)),  # exact names or `prefix*`; null: all
    Column("rate_limit", Integer),  # requests in `rate_per_seconds`; null: no limit
    Column("rate_per_seconds", Integer),
    _time("created_at", required=True),
    CheckConstraint(
        "(rate_limit IS NULL) = (rate_per_seconds IS NULL) AND rate_limit > 0 AND rate_per_seconds > 0",
        name="rate",
    ),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),  # the 16 hex digits that a key shows openly
    Column("consumer_id", UUID, ForeignKey("consumers.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("secret_sha256", LargeBinary, nullable=False),
    _time("created_at", required=True),
    _time("expires_at"),
    _time("revoked_at"),
    _time("last_used_at"),
    CheckConstraint("id ~ '^[0-9a-f]{16}$'", name="id"),
)

rate_limits = Table(  # what is left of consumers' rates, for all replicas together
    "rate_limits",
    metadata,
    Column("consumer_id", UUID, ForeignKey("consumers.id", ondelete="CASCADE"), primary_key=True),
    Column("tokens", DOUBLE_PRECISION, nullable=False),
    Column("refilled_at", DateTime(timezone=True), nullable=False),
    postgresql_with={"fillfactor": "50"},
)

audit_events = Table(
    "audit_events",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("provider", Text),
    Column("user_id", Text),
    Column("grant_id", UUID),
    Column("request_id", Text),
    Column("details", JSONB, nullable=False, server_default=_empty_object),
    _time("at", required=True),
    # Each filter of GET /audit with the order of its answer.
    Index("audit_events_actor_idx", "actor", "id"),
    Index("audit_events_action_idx", "action", "id"),
    Index("audit_events_provider_idx", "provider", "id", postgresql_where=text("provider IS NOT NULL")),
    Index("audit_events_user_idx", "user_id", "id", postgresql_where=text("user_id IS NOT NULL")),
    Index("audit_events_grant_idx", "grant_id", "id"),
    Index("audit_events_request_idx", "request_id", "id", postgresql_where=text("request_id IS NOT NULL")),
)

audit_unchained = Table(  # events that the sealer has still to chain; a trigger of audit_events fills it
    "audit_unchained",
    metadata,
    Column("event_id", UUID, primary_key=True),
    # Rows come and go: what is read from the left must not be full of dead ones.
    postgresql_with={"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "2000"},
)

audit_chain = Table(  # each hash covers its event and the hash before
    "audit_chain",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", UUID, nullable=False, unique=True),
    Column("hash", LargeBinary, nullable=False),
    Column("key_id", UUID, nullable=False),  # the data key that the key of the hash is derived from
    Column("version", SmallInteger, nullable=False),  # of how an event becomes bytes
    Column("sealed_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("octet_length(hash) = 32", name="hash"),
    CheckConstraint("sequence > 0", name="sequence"),
)


def _end_of_chain(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("only_one", Boolean, primary_key=True, server_default=text("true")),
        Column("sequence", BigInteger, nullable=False),
        Column("hash", LargeBinary, nullable=False),
        CheckConstraint("only_one", name="only_one"),
        CheckConstraint("octet_length(hash) = 32", name="hash"),
    )


audit_head = _end_of_chain("audit_head")  # the last that was chained
audit_beginning = _end_of_chain("audit_beginning")  # the last that was pruned; only `prune_audit` writes it
audit_retention = Table(  # 0: for ever. The owner's word, by which `prune_audit` goes
    "audit_retention",
    metadata,
    Column("only_one", Boolean, primary_key=True, server_default=text("true")),
    Column("days", Integer, nullable=False),
    CheckConstraint("only_one", name="only_one"),
    CheckConstraint("days = 0 OR days >= 30", name="days"),
)
