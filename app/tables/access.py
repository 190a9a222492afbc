"""Who calls, whom we call, and the keys to both."""

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
)
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION, JSONB, UUID

from app.tables.base import empty_object, metadata, time_column

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
    time_column("created_at", required=True),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    time_column("used_at"),
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
    Column("settings", JSONB, nullable=False, server_default=empty_object),
    Column(
        "resources", JSONB, nullable=False, server_default=empty_object
    ),  # path -> seconds its answers keep
    Column("generation", BigInteger, nullable=False, server_default="1"),
    time_column("created_at", required=True),
    time_column("updated_at", required=True),
    time_column("removed_at"),  # its grants are there still, so the name stays that of its catalogue entry
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
    time_column("since"),  # when the row of openings began that this one belongs to
    time_column("next_probe_at"),
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
    time_column("created_at", required=True),
    time_column("active_at", required=True),  # it seals from then on
    Column("seals", BigInteger, nullable=False, server_default="0"),  # how many values, about
    time_column("emptied_at"),  # nothing is sealed under it any more
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
    time_column("created_at", required=True),
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
    time_column("created_at", required=True),
    time_column("expires_at"),
    time_column("revoked_at"),
    time_column("last_used_at"),
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
