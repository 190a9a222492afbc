"""The last turn of each circuit breaker.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "breakers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("turned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_probe_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cooldown_seconds", sa.Double(), nullable=True),
        sa.Column("operator", sa.Text(), nullable=True),
        sa.Column("replica", sa.Text(), nullable=False),
        sa.CheckConstraint("state IN ('closed', 'open')", name=op.f("breakers_state_check")),
        sa.CheckConstraint(
            "num_nonnulls(since, next_probe_at, cooldown_seconds) = CASE state WHEN 'open' THEN 3 ELSE 0 END",
            name=op.f("breakers_open_is_whole_check"),
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("breakers_pkey")),
    )


def downgrade() -> None:
    op.drop_table("breakers")
