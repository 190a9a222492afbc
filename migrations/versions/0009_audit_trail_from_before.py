"""Events from before the chain are queued for it, and each filter of the audit trail has an index.

Since revision 0007 a trigger queues events as they are written. It waited for all who were writing, so whatever it did not queue
can be seen here.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.online import backfill, beside, build_index, drop_index

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_FILTERS = {
    "audit_events_actor_idx": ("actor", None),
    "audit_events_action_idx": ("action", None),
    "audit_events_provider_idx": ("provider", sa.text("provider IS NOT NULL")),
    "audit_events_user_idx": ("user_id", sa.text("user_id IS NOT NULL")),
    "audit_events_request_idx": ("request_id", sa.text("request_id IS NOT NULL")),
}
# Whoever chains events holds it for that, and who does not get it lets it be for a second. So none of those that are queued here is
# chained at the same moment, and queued again after that. It ends with the connection at the latest.
_SEALING = 5_518_230_467_921_340_077
_UNLOCK = f"DO $$ BEGIN WHILE pg_advisory_unlock({_SEALING}) LOOP END LOOP; END $$"  # as often as a repeated try took it
# Also a second time, when some of them may have been chained.
_QUEUE = """
INSERT INTO audit_unchained (event_id)
SELECT id FROM audit_events AS event WHERE id > :after AND id <= :upto
  AND NOT EXISTS (SELECT FROM audit_chain WHERE audit_chain.event_id = event.id)
ON CONFLICT DO NOTHING
"""


def upgrade() -> None:
    with beside():
        op.execute(f"SELECT pg_advisory_lock({_SEALING})")
        backfill("audit_events", _QUEUE)
        op.execute(_UNLOCK)
        for name, (column, where) in _FILTERS.items():
            build_index(name, "audit_events", [column, "id"], postgresql_where=where)
        drop_index("audit_events_at_idx")


def downgrade() -> None:
    op.create_index("audit_events_at_idx", "audit_events", ["at"], unique=False)
    for name in _FILTERS:
        op.drop_index(name, table_name="audit_events")
