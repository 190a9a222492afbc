"""Grants, and what is known of their refreshes."""

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
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION, JSONB, UUID

from app.tables.base import empty_object, metadata, time_column

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
    time_column("expires_at"),  # null: never expires
    Column(
        "issued_ttl_seconds", DOUBLE_PRECISION
    ),  # what the last refresh had left when it was committed; null before
    time_column("refresh_expires_at"),
    time_column("next_refresh_at"),
    # The claim of the refresh that is running or whose outcome is unknown.
    Column("epoch", BigInteger, nullable=False, server_default="0"),
    Column("attempt_id", UUID),
    Column("owner", Text),
    time_column("lease_until"),
    time_column("takeover_at"),
    Column(
        "may_be_spent", Boolean, nullable=False, server_default=text("false")
    ),  # how an earlier attempt with this refresh token ended was never known
    time_column("refused_at"),  # when the provider first called this refresh token dead
    time_column("probe_at"),  # when a dead one is tried once more
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("last_error", JSONB(none_as_null=True)),
    time_column("last_error_at"),
    Column("refresh_count", BigInteger, nullable=False, server_default="0"),
    time_column("last_refreshed_at"),
    time_column("last_used_at"),
    time_column("last_validated_at"),
    time_column(
        "unasked_since"
    ),  # the background's questions whether its access token works are counted from here
    Column("denied_generation", BigInteger),  # the one whose access token the last of them called bad
    Column("metadata", JSONB, nullable=False, server_default=empty_object),
    time_column("created_at", required=True),
    time_column("updated_at", required=True),
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
    time_column("at", required=True),
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
        time_column("created_at", required=True),
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
    time_column("cleared_at"),
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
    time_column("created_at", required=True),
    CheckConstraint("token_type_hint IN ('refresh_token', 'access_token')", name="token_type_hint"),
    Index("revocations_next_attempt_idx", "next_attempt_at"),
    Index("revocations_grant_idx", "grant_id"),
)
