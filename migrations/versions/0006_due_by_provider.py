"""What is due is found by provider, so that each is worked off by itself.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.online import beside, build_index, drop_index

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_DUE = sa.text("status = 'active' AND next_refresh_at IS NOT NULL")


def upgrade() -> None:
    with beside():
        build_index(
            "grants_provider_due_idx", "grants", ["provider", "next_refresh_at"], postgresql_where=_DUE
        )
        drop_index("grants_due_idx")


def downgrade() -> None:
    op.create_index("grants_due_idx", "grants", ["next_refresh_at"], postgresql_where=_DUE)
    op.drop_index("grants_provider_due_idx", table_name="grants")
