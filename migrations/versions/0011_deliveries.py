"""Deliveries: calls that are kept until they arrive, how often APIs may be asked, and how long their answers keep.

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.online import add_column, beside

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with beside():
        add_column(
            "oauth_clients",
            sa.Column(
                "resources",
                postgresql.JSONB(astext_type=sa.Text()),
                server_default=sa.text("'{}'::jsonb"),
                nullable=False,
            ),
        )
    op.create_table(
        "api_rates",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("grant_id", sa.UUID(), nullable=False),
        sa.Column(
            "windows",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "askers",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("held_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "void_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("provider", "grant_id", name=op.f("api_rates_pkey")),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_index(
        "api_rates_held_idx",
        "api_rates",
        ["held_until"],
        postgresql_where=sa.text("held_until IS NOT NULL"),
    )
    op.create_index("api_rates_void_idx", "api_rates", ["void_at"])
    op.create_table(
        "delivery_batches",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("consumer_id", sa.UUID(), nullable=False),
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("records_per_request", sa.Integer(), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("sending", sa.Integer(), server_default="0", nullable=False),
        sa.Column("wrap", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("forgotten_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "total > 0 AND records_per_request > 0 AND concurrency > 0",
            name=op.f("delivery_batches_sizes_check"),
        ),
        sa.CheckConstraint("sending BETWEEN 0 AND concurrency", name=op.f("delivery_batches_places_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("delivery_batches_pkey")),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_index("delivery_batches_consumer_idx", "delivery_batches", ["consumer_id", "id"], unique=False)
    op.create_index(
        "delivery_batches_created_idx",
        "delivery_batches",
        ["created_at", "id"],
        unique=False,
        postgresql_where=sa.text("forgotten_at IS NULL"),
    )
    op.create_index(
        "delivery_batches_cancelled_idx",
        "delivery_batches",
        ["cancelled_at"],
        unique=False,
        postgresql_where=sa.text("cancelled_at IS NOT NULL"),
    )
    op.create_index(
        "delivery_batches_forgotten_idx",
        "delivery_batches",
        ["forgotten_at"],
        unique=False,
        postgresql_where=sa.text("forgotten_at IS NOT NULL"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("consumer_id", sa.UUID(), nullable=False),
        sa.Column("key_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("parameters_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("resource_id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("consumer_id", "key_sha256", name=op.f("idempotency_keys_pkey")),
    )
    op.create_index("idempotency_keys_created_idx", "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "deliveries",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("consumer_id", sa.UUID(), nullable=False),
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.UUID(), nullable=True),
        sa.Column("parent_id", sa.UUID(), nullable=True),
        sa.Column("first_record", sa.Integer(), nullable=True),
        sa.Column("records", sa.Integer(), server_default="1", nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("grant_id", sa.UUID(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sealed_request", sa.LargeBinary(), nullable=False),
        sa.Column("retry_on", postgresql.ARRAY(sa.Integer()), nullable=True),
        sa.Column("status", sa.Text(), server_default="queued", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("unknowns", sa.Integer(), server_default="0", nullable=False),
        sa.Column("put_back_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("category", sa.Text(), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("sealed_response", sa.LargeBinary(), nullable=True),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claim_id", sa.UUID(), nullable=True),
        sa.Column("replica", sa.Text(), nullable=True),
        sa.Column("sending_since", sa.DateTime(timezone=True), nullable=True),
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
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'sending') = (claim_id IS NOT NULL) AND (claim_id IS NULL) = (sending_since IS NULL)",
            name=op.f("deliveries_claim_is_whole_check"),
        ),
        sa.CheckConstraint(
            "(status IN ('delivered', 'dead', 'cancelled')) = (ended_at IS NOT NULL)",
            name=op.f("deliveries_ended_check"),
        ),
        sa.CheckConstraint(
            "next_attempt_at IS NULL OR status IN ('queued', 'retrying')",
            name=op.f("deliveries_due_is_pending_check"),
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'sending', 'delivered', 'retrying', 'dead', 'cancelled')",
            name=op.f("deliveries_status_check"),
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["delivery_batches.id"], name=op.f("deliveries_batch_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("deliveries_pkey")),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "deliveries_batch_idx",
        "deliveries",
        ["batch_id", "status", "id"],
        unique=False,
        postgresql_include=["records"],
    )
    op.create_index("deliveries_consumer_idx", "deliveries", ["consumer_id", "id"], unique=False)
    op.create_index(
        "deliveries_due_idx",
        "deliveries",
        ["provider", "next_attempt_at", "id"],
        unique=False,
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    )
    op.create_index(
        "deliveries_ended_idx",
        "deliveries",
        ["status", "ended_at"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NOT NULL AND batch_id IS NULL"),
    )
    op.create_index(
        "deliveries_batch_ended_idx",
        "deliveries",
        ["batch_id", "ended_at"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NOT NULL AND batch_id IS NOT NULL"),
    )
    op.create_index(
        "deliveries_sending_idx",
        "deliveries",
        ["sending_since"],
        unique=False,
        postgresql_where=sa.text("status = 'sending'"),
    )
    op.create_index(
        "deliveries_turn_idx",
        "deliveries",
        ["batch_id", "next_attempt_at", "id"],
        unique=False,
        postgresql_where=sa.text("batch_id IS NOT NULL AND status IN ('queued', 'retrying')"),
    )
    op.create_index("deliveries_status_idx", "deliveries", ["consumer_id", "status", "id"], unique=False)
    op.create_index("deliveries_user_idx", "deliveries", ["user_id", "id"], unique=False)
    op.create_table(
        "delivery_attempts",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("delivery_id", sa.UUID(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("milliseconds", sa.Integer(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("category", sa.Text(), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("replica", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["deliveries.id"],
            name=op.f("delivery_attempts_delivery_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("delivery_attempts_pkey")),
        sa.UniqueConstraint("delivery_id", "number", name=op.f("delivery_attempts_delivery_id_key")),
    )
    op.create_index("delivery_attempts_at_idx", "delivery_attempts", ["at"], unique=False)


def downgrade() -> None:
    for name in ("api_rates", "idempotency_keys", "delivery_attempts", "deliveries", "delivery_batches"):
        op.drop_table(name)
    op.drop_column("oauth_clients", "resources")
