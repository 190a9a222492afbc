"""Calendars: their events, how far each has been synced, and what providers tell of changes by.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "calendar_accounts",
        sa.Column("grant_id", sa.UUID(), nullable=False),
        sa.Column("scheduled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("listed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lineage_id", sa.UUID(), nullable=True),
        sa.Column("next_list_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.id"], name=op.f("calendar_accounts_grant_id_fkey")),
        sa.PrimaryKeyConstraint("grant_id", name=op.f("calendar_accounts_pkey")),
    )
    op.create_index(
        "calendar_accounts_due_idx",
        "calendar_accounts",
        ["next_list_at"],
        unique=False,
        postgresql_where=sa.text("scheduled"),
    )
    op.create_table(
        "calendars",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("grant_id", sa.UUID(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("zone", sa.Text(), nullable=True),
        sa.Column("access_role", sa.Text(), nullable=False),
        sa.Column("is_primary", sa.Boolean(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
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
        sa.ForeignKeyConstraint(
            ["grant_id"],
            ["calendar_accounts.grant_id"],
            name=op.f("calendars_grant_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("calendars_pkey")),
        sa.UniqueConstraint("grant_id", "external_id", name=op.f("calendars_grant_id_key")),
    )
    op.create_table(
        "calendar_sync_states",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("grant_id", sa.UUID(), nullable=False),
        sa.Column("sealed_cursor", sa.LargeBinary(), nullable=True),
        sa.Column("params_hash", sa.LargeBinary(), nullable=True),
        sa.Column("generation", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("window_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("window_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_full_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("full_due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_ok_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("scheduled", sa.Boolean(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_owner", sa.UUID(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("notified_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(lease_owner IS NULL) = (lease_until IS NULL)",
            name=op.f("calendar_sync_states_lease_is_whole_check"),
        ),
        sa.ForeignKeyConstraint(
            ["id"], ["calendars.id"], name=op.f("calendar_sync_states_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("calendar_sync_states_pkey")),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "calendar_sync_states_due_idx",
        "calendar_sync_states",
        ["next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("scheduled"),
    )
    op.create_table(
        "calendar_events",
        sa.Column("calendar_id", sa.UUID(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("ical_uid", sa.Text(), nullable=True),
        sa.Column("master_id", sa.Text(), nullable=True),
        sa.Column("original_start", sa.Text(), nullable=True),
        sa.Column("start_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("start_date", sa.Date(), nullable=True),
        sa.Column("end_date", sa.Date(), nullable=True),
        sa.Column("zone", sa.Text(), nullable=True),
        sa.Column("recurrence", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("etag", sa.Text(), nullable=True),
        sa.Column("provider_updated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("raw", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "kind IN ('single', 'series', 'instance', 'exception')", name=op.f("calendar_events_kind_check")
        ),
        sa.CheckConstraint(
            "status = 'cancelled' OR since IS NOT NULL", name=op.f("calendar_events_living_has_a_time_check")
        ),
        sa.ForeignKeyConstraint(
            ["calendar_id"],
            ["calendars.id"],
            name=op.f("calendar_events_calendar_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("calendar_id", "external_id", name=op.f("calendar_events_pkey")),
    )
    op.create_index(
        "calendar_events_master_idx",
        "calendar_events",
        ["calendar_id", "master_id"],
        unique=False,
        postgresql_where=sa.text("master_id IS NOT NULL"),
    )
    op.create_index("calendar_events_until_idx", "calendar_events", ["calendar_id", "until"], unique=False)
    op.create_table(
        "push_channels",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("grant_id", sa.UUID(), nullable=False),
        sa.Column("calendar_id", sa.UUID(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("channel_id", sa.Text(), nullable=True),
        sa.Column("resource_id", sa.Text(), nullable=True),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), server_default="opening", nullable=False),
        sa.Column("last_message_number", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "next_attempt_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "state IN ('opening', 'open', 'closing', 'refused')", name=op.f("push_channels_state_check")
        ),
        sa.CheckConstraint("octet_length(secret_hash) = 32", name=op.f("push_channels_secret_hash_check")),
        sa.ForeignKeyConstraint(
            ["calendar_id"], ["calendars.id"], name=op.f("push_channels_calendar_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("push_channels_pkey")),
    )
    op.create_index("push_channels_calendar_idx", "push_channels", ["calendar_id"], unique=False)
    op.create_index(
        "push_channels_channel_idx",
        "push_channels",
        ["provider", "channel_id"],
        unique=True,
        postgresql_where=sa.text("channel_id IS NOT NULL"),
    )
    op.create_index("push_channels_due_idx", "push_channels", ["next_attempt_at"], unique=False)
    op.create_table(
        "sync_runs",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("grant_id", sa.UUID(), nullable=False),
        sa.Column("trigger", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("error_type", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("calendars", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "ended_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["grant_id"],
            ["calendar_accounts.grant_id"],
            name=op.f("sync_runs_grant_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", "grant_id", name=op.f("sync_runs_pkey")),
    )
    op.create_index("sync_runs_ended_idx", "sync_runs", ["ended_at"], unique=False)
    op.create_index("sync_runs_grant_idx", "sync_runs", ["grant_id", "id"], unique=False)


def downgrade() -> None:
    for name in (
        "sync_runs",
        "push_channels",
        "calendar_events",
        "calendar_sync_states",
        "calendars",
        "calendar_accounts",
    ):
        op.drop_table(name)
