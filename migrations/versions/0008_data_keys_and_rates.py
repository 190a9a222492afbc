"""Data keys that follow one another, rates that replicas share, and when an API key was last used.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION, UUID

from app.online import add_column, beside

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    with beside():
        # For those that are there the default is one moment, so that they are not rewritten.
        add_column(
            "data_keys", sa.Column("active_at", moment, nullable=False, server_default=sa.text("now()"))
        )
        op.alter_column("data_keys", "active_at", server_default=sa.text("clock_timestamp()"))
        add_column("data_keys", sa.Column("seals", sa.BigInteger, nullable=False, server_default="0"))
        add_column("data_keys", sa.Column("emptied_at", moment))
        add_column("api_keys", sa.Column("last_used_at", moment))
    op.create_table(
        "rate_limits",
        sa.Column("consumer_id", UUID, nullable=False),
        sa.Column("tokens", DOUBLE_PRECISION, nullable=False),
        sa.Column("refilled_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("consumer_id", name="rate_limits_pkey"),
        sa.ForeignKeyConstraint(
            ["consumer_id"], ["consumers.id"], name="rate_limits_consumer_id_fkey", ondelete="CASCADE"
        ),
        postgresql_with={"fillfactor": "50"},
    )


def downgrade() -> None:
    op.drop_table("rate_limits")
    op.drop_column("api_keys", "last_used_at")
    for name in ("emptied_at", "seals", "active_at"):
        op.drop_column("data_keys", name)
