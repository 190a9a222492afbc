"""Grants, their refreshes and connections, keys, consumers and the audit trail.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_events",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("grant_id", sa.UUID(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column(
            "details",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("audit_events_pkey")),
    )
    op.create_index("audit_events_at_idx", "audit_events", ["at"], unique=False)
    op.create_table(
        "authorization_requests",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("state_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("redirect_uri", sa.Text(), nullable=False),
        sa.Column("return_to", sa.Text(), nullable=True),
        sa.Column("login_hint", sa.Text(), nullable=True),
        sa.Column("sealed_code_verifier", sa.LargeBinary(), nullable=False),
        sa.Column("browser_bound", sa.Boolean(), nullable=False),
        sa.Column("browser_sha256", sa.LargeBinary(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("authorization_requests_pkey")),
        sa.UniqueConstraint("state_sha256", name=op.f("authorization_requests_state_sha256_key")),
    )
    op.create_index(
        "authorization_requests_expires_idx", "authorization_requests", ["expires_at"], unique=False
    )
    op.create_table(
        "consumers",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("providers", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("users", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("consumers_pkey")),
        sa.UniqueConstraint("name", name=op.f("consumers_name_key")),
    )
    op.create_table(
        "data_keys",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("key_encryption_key", sa.Text(), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("data_keys_pkey")),
    )
    op.create_table(
        "grants",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), server_default="default", nullable=False),
        sa.Column("status", sa.Text(), server_default="active", nullable=False),
        sa.Column("reconnect_reason", sa.Text(), nullable=True),
        sa.Column("lineage_id", sa.UUID(), nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("sealed_access_token", sa.LargeBinary(), nullable=True),
        sa.Column("sealed_refresh_token", sa.LargeBinary(), nullable=True),
        sa.Column("refresh_fingerprint", sa.LargeBinary(), nullable=True),
        sa.Column("token_type", sa.Text(), server_default="Bearer", nullable=False),
        sa.Column("scope", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("issued_ttl_seconds", postgresql.DOUBLE_PRECISION(), nullable=True),
        sa.Column("refresh_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_refresh_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("epoch", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempt_id", sa.UUID(), nullable=True),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("takeover_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("last_error_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refresh_count", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("last_refreshed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_validated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "(status = 'reconnect_required') = (reconnect_reason IS NOT NULL)",
            name=op.f("grants_reconnect_reason_check"),
        ),
        sa.CheckConstraint(
            "status <> 'revoked' OR (sealed_access_token IS NULL AND sealed_refresh_token IS NULL)",
            name=op.f("grants_revoked_is_empty_check"),
        ),
        sa.CheckConstraint(
            "status IN ('active', 'reconnect_required', 'revoked')", name=op.f("grants_status_check")
        ),
        sa.CheckConstraint(
            "(attempt_id IS NULL) = (takeover_at IS NULL)", name=op.f("grants_claim_is_whole_check")
        ),
        sa.CheckConstraint(
            "(sealed_refresh_token IS NULL) = (refresh_fingerprint IS NULL)",
            name=op.f("grants_refresh_fingerprint_check"),
        ),
        sa.CheckConstraint("char_length(account) BETWEEN 1 AND 255", name=op.f("grants_account_check")),
        sa.CheckConstraint("char_length(user_id) BETWEEN 1 AND 255", name=op.f("grants_user_id_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("grants_pkey")),
        postgresql_with={"fillfactor": "80"},
    )
    op.create_index(
        "grants_due_idx",
        "grants",
        ["next_refresh_at"],
        unique=False,
        postgresql_where=sa.text("status = 'active' AND next_refresh_at IS NOT NULL"),
    )
    op.create_index(
        "grants_key_idx",
        "grants",
        ["provider", "user_id", "account"],
        unique=True,
        postgresql_where=sa.text("status <> 'revoked'"),
    )
    op.create_index(
        "grants_refresh_fingerprint_idx",
        "grants",
        ["refresh_fingerprint"],
        unique=False,
        postgresql_where=sa.text("refresh_fingerprint IS NOT NULL"),
    )
    op.create_table(
        "oauth_clients",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("catalogue", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("sealed_client_secret", sa.LargeBinary(), nullable=True),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column(
            "settings",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("generation", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("oauth_clients_pkey")),
        sa.UniqueConstraint("id", name=op.f("oauth_clients_id_key")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("consumer_id", sa.UUID(), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("id ~ '^[0-9a-f]{16}$'", name=op.f("api_keys_id_check")),
        sa.ForeignKeyConstraint(
            ["consumer_id"], ["consumers.id"], name=op.f("api_keys_consumer_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("api_keys_pkey")),
    )
    op.create_index(op.f("api_keys_consumer_id_idx"), "api_keys", ["consumer_id"], unique=False)
    op.create_table(
        "refresh_attempts",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("grant_id", sa.UUID(), nullable=False),
        sa.Column("lineage_id", sa.UUID(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("replica", sa.Text(), nullable=False),
        sa.Column("trigger", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=True),
        sa.Column("provider_code", sa.Text(), nullable=True),
        sa.Column("milliseconds", sa.Integer(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("spent_fingerprint", sa.LargeBinary(), nullable=True),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "outcome IN ('refreshed', 'failed', 'unknown', 'dead')",
            name=op.f("refresh_attempts_outcome_check"),
        ),
        sa.ForeignKeyConstraint(
            ["grant_id"], ["grants.id"], name=op.f("refresh_attempts_grant_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("refresh_attempts_pkey")),
    )
    op.create_index("refresh_attempts_grant_idx", "refresh_attempts", ["grant_id", "at"], unique=False)


def downgrade() -> None:
    op.drop_index("refresh_attempts_grant_idx", table_name="refresh_attempts")
    op.drop_table("refresh_attempts")
    op.drop_index(op.f("api_keys_consumer_id_idx"), table_name="api_keys")
    op.drop_table("api_keys")
    op.drop_table("oauth_clients")
    op.drop_index(
        "grants_refresh_fingerprint_idx",
        table_name="grants",
        postgresql_where=sa.text("refresh_fingerprint IS NOT NULL"),
    )
    op.drop_index("grants_key_idx", table_name="grants", postgresql_where=sa.text("status <> 'revoked'"))
    op.drop_index(
        "grants_due_idx",
        table_name="grants",
        postgresql_where=sa.text("status = 'active' AND next_refresh_at IS NOT NULL"),
    )
    op.drop_table("grants")
    op.drop_table("data_keys")
    op.drop_table("consumers")
    op.drop_index("authorization_requests_expires_idx", table_name="authorization_requests")
    op.drop_table("authorization_requests")
    op.drop_index("audit_events_at_idx", table_name="audit_events")
    op.drop_table("audit_events")
