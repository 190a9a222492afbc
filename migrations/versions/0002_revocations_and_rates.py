"""Revocations that are not confirmed yet, removed registrations, consumers' rates, and the audit trail of a grant.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.online import add_check, add_column, beside, build_index

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with beside():
        add_column("consumers", sa.Column("rate_limit", sa.Integer(), nullable=True))
        add_column("consumers", sa.Column("rate_per_seconds", sa.Integer(), nullable=True))
        add_check(
            "consumers_rate_check",
            "consumers",
            "(rate_limit IS NULL) = (rate_per_seconds IS NULL) AND rate_limit > 0 AND rate_per_seconds > 0",
        )
        add_column("oauth_clients", sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True))
        add_check(
            "oauth_clients_removed_is_empty_check",
            "oauth_clients",
            "removed_at IS NULL OR sealed_client_secret IS NULL",
        )
        build_index("audit_events_grant_idx", "audit_events", ["grant_id", "id"])
    op.create_table(
        "revocations",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("grant_id", sa.UUID(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("token_type_hint", sa.Text(), nullable=False),
        sa.Column("sealed_token", sa.LargeBinary(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "token_type_hint IN ('refresh_token', 'access_token')",
            name=op.f("revocations_token_type_hint_check"),
        ),
        sa.ForeignKeyConstraint(
            ["grant_id"], ["grants.id"], name=op.f("revocations_grant_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("revocations_pkey")),
    )
    op.create_index("revocations_next_attempt_idx", "revocations", ["next_attempt_at"], unique=False)
    op.create_index("revocations_grant_idx", "revocations", ["grant_id"], unique=False)


def downgrade() -> None:
    op.drop_index("audit_events_grant_idx", table_name="audit_events")
    op.drop_constraint(op.f("oauth_clients_removed_is_empty_check"), "oauth_clients")
    op.drop_column("oauth_clients", "removed_at")
    op.drop_constraint(op.f("consumers_rate_check"), "consumers")
    op.drop_column("consumers", "rate_per_seconds")
    op.drop_column("consumers", "rate_limit")
    op.drop_table("revocations")
