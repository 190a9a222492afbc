"""What a refresh keeps when it cannot say how it ended: candidates, doubts, refusals; and providers' incidents.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.online import add_column, beside, build_index

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with beside():
        add_column(
            "grants", sa.Column("may_be_spent", sa.Boolean(), server_default=sa.text("false"), nullable=False)
        )
        add_column("grants", sa.Column("refused_at", sa.DateTime(timezone=True), nullable=True))
        add_column("grants", sa.Column("probe_at", sa.DateTime(timezone=True), nullable=True))
        build_index(
            "grants_refused_idx",
            "grants",
            ["provider", "refused_at"],
            postgresql_where=sa.text("refused_at IS NOT NULL"),
        )
        build_index(
            "grants_probe_idx", "grants", ["probe_at"], postgresql_where=sa.text("probe_at IS NOT NULL")
        )
        add_column("refresh_attempts", sa.Column("provider", sa.Text(), nullable=True))
        build_index(
            "refresh_attempts_at_idx",
            "refresh_attempts",
            ["at"],
            postgresql_using="brin",
            postgresql_with={"autosummarize": "on"},
        )
    op.create_table(
        "grant_candidates",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("grant_id", sa.UUID(), nullable=False),
        sa.Column("lineage_id", sa.UUID(), nullable=False),
        sa.Column("base_fingerprint", sa.LargeBinary(), nullable=True),
        sa.Column("sealed_tokens", sa.LargeBinary(), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["grant_id"], ["grants.id"], name=op.f("grant_candidates_grant_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("grant_candidates_pkey")),
    )
    op.create_index("grant_candidates_grant_idx", "grant_candidates", ["grant_id", "created_at"])
    op.create_index("grant_candidates_created_idx", "grant_candidates", ["created_at"])
    op.create_table(
        "provider_incidents",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.Column("recovered", sa.Integer(), server_default="0", nullable=False),
        sa.Column("replica", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cleared_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("provider_incidents_pkey")),
    )
    op.create_index(
        "provider_incidents_open_idx",
        "provider_incidents",
        ["provider"],
        unique=True,
        postgresql_where=sa.text("cleared_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("provider_incidents")
    op.drop_table("grant_candidates")
    op.drop_index("refresh_attempts_at_idx", "refresh_attempts")
    op.drop_column("refresh_attempts", "provider")
    op.drop_index("grants_probe_idx", "grants")
    op.drop_index("grants_refused_idx", "grants")
    for column in ("probe_at", "refused_at", "may_be_spent"):
        op.drop_column("grants", column)
