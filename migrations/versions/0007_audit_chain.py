"""The audit trail is chained: each hash covers an event and the hash before. And it can be pruned, by a function only.

`audit_unchained` holds the events that are not chained yet. A trigger fills it, so that nothing depends on how an event
was written, nor on the order in which transactions end: an event that is committed late is there as soon as it can be seen.

Both functions act with the rights of the role that migrates, so the service needs none to delete from `audit_events` or
`audit_chain`. PUBLIC may not execute `prune_audit`.

Events from before the trigger are queued by revision 0009.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_NOTHING = "decode(repeat('00', 32), 'hex')"

_QUEUE = """
CREATE FUNCTION {schema}.queue_audit_events() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
BEGIN
  INSERT INTO audit_unchained (event_id) SELECT id FROM added;
  RETURN NULL;
END
$$
"""
_TRIGGER = """
CREATE TRIGGER queue_audit_events AFTER INSERT ON audit_events
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION {schema}.queue_audit_events()
"""
# From the chain's beginning, and nothing behind a row that does not fit: what was tampered with is not tidied away.
_PRUNE = """
CREATE FUNCTION {schema}.prune_audit(before timestamptz, most integer, OUT pruned integer, OUT sequence bigint, OUT hash bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
DECLARE
  sealed audit_chain%ROWTYPE;
  kept integer;
BEGIN
  SELECT r.days INTO kept FROM audit_retention AS r;
  IF before IS NULL OR kept = 0 OR before > clock_timestamp() - make_interval(days => greatest(kept, 30)) THEN
    RAISE EXCEPTION 'audit events are kept for % days', CASE kept WHEN 0 THEN 'all' ELSE greatest(kept, 30)::text END
      USING ERRCODE = 'insufficient_privilege';
  END IF;
  pruned := 0;
  SELECT b.sequence, b.hash INTO sequence, hash FROM audit_beginning AS b FOR UPDATE;
  FOR sealed IN
    SELECT c.* FROM audit_chain AS c WHERE c.sequence > prune_audit.sequence ORDER BY c.sequence LIMIT most
  LOOP
    EXIT WHEN sealed.sequence <> sequence + 1 OR sealed.sealed_at >= before;
    DELETE FROM audit_events AS e WHERE e.id = sealed.event_id AND e.at < before;
    EXIT WHEN NOT FOUND;
    DELETE FROM audit_chain AS c WHERE c.sequence = sealed.sequence;
    pruned := pruned + 1;
    sequence := sealed.sequence;
    hash := sealed.hash;
  END LOOP;
  UPDATE audit_beginning AS b SET sequence = prune_audit.sequence, hash = prune_audit.hash WHERE pruned > 0;
END
$$
"""


def upgrade() -> None:
    op.create_table(
        "audit_retention",
        sa.Column("only_one", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("days", sa.Integer(), nullable=False),
        sa.CheckConstraint("only_one", name=op.f("audit_retention_only_one_check")),
        sa.CheckConstraint("days = 0 OR days >= 30", name=op.f("audit_retention_days_check")),
        sa.PrimaryKeyConstraint("only_one", name=op.f("audit_retention_pkey")),
    )
    op.execute("INSERT INTO audit_retention (days) VALUES (0)")
    op.create_table(
        "audit_unchained",
        sa.Column("event_id", sa.UUID(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("audit_unchained_pkey")),
        postgresql_with={"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "2000"},
    )
    op.create_table(
        "audit_chain",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("event_id", sa.UUID(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.UUID(), nullable=False),
        sa.Column("version", sa.SmallInteger(), nullable=False),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("octet_length(hash) = 32", name=op.f("audit_chain_hash_check")),
        sa.CheckConstraint("sequence > 0", name=op.f("audit_chain_sequence_check")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("audit_chain_pkey")),
        sa.UniqueConstraint("event_id", name=op.f("audit_chain_event_id_key")),
    )
    for name in ("audit_head", "audit_beginning"):
        _create_end(name)
    schema = op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())"))
    op.execute(_QUEUE.format(schema=schema))
    op.execute(_PRUNE.format(schema=schema))
    op.execute("REVOKE ALL ON FUNCTION prune_audit(timestamptz, integer) FROM PUBLIC")
    op.execute("REVOKE ALL ON FUNCTION queue_audit_events() FROM PUBLIC")
    # The last, for it waits for all who are writing an event, and all who come later wait for it.
    op.execute(_TRIGGER.format(schema=schema))


def _create_end(name: str) -> None:
    op.create_table(
        name,
        sa.Column("only_one", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("only_one", name=op.f(f"{name}_only_one_check")),
        sa.CheckConstraint("octet_length(hash) = 32", name=op.f(f"{name}_hash_check")),
        sa.PrimaryKeyConstraint("only_one", name=op.f(f"{name}_pkey")),
    )
    op.execute(f"INSERT INTO {name} (sequence, hash) VALUES (0, {_NOTHING})")


def downgrade() -> None:
    op.execute("DROP FUNCTION prune_audit(timestamptz, integer)")
    op.execute("DROP TRIGGER queue_audit_events ON audit_events")
    op.execute("DROP FUNCTION queue_audit_events()")
    for name in ("audit_retention", "audit_beginning", "audit_head", "audit_chain", "audit_unchained"):
        op.drop_table(name)
