"""Which grant a provider is next asked about, and when.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.online import add_column, beside, build_index

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with beside():
        add_column("grants", sa.Column("unasked_since", sa.DateTime(timezone=True), nullable=True))
        add_column("grants", sa.Column("denied_generation", sa.BigInteger(), nullable=True))
        build_index(
            "grants_unasked_idx",
            "grants",
            ["provider", sa.text("GREATEST(created_at, last_refreshed_at, unasked_since)")],
            postgresql_where=sa.text(
                "status = 'active' AND failures = 0 AND (refresh_fingerprint IS NOT NULL OR expires_at IS NULL)"
            ),
        )
    op.create_table(
        "validation_turns",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("denials", sa.Double(), server_default="0", nullable=False),
        sa.Column("silences", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("provider", name=op.f("validation_turns_pkey")),
    )


def downgrade() -> None:
    op.drop_table("validation_turns")
    op.drop_index("grants_unasked_idx", "grants")
    op.drop_column("grants", "denied_generation")
    op.drop_column("grants", "unasked_since")
