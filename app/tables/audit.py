"""The audit trail, its chain, and how long it is kept."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from app.tables.base import empty_object, metadata, time_column

audit_events = Table(
    "audit_events",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("provider", Text),
    Column("user_id", Text),
    Column("grant_id", UUID),
    Column("request_id", Text),
    Column("details", JSONB, nullable=False, server_default=empty_object),
    time_column("at", required=True),
    # Each filter of GET /audit with the order of its answer.
    Index("audit_events_actor_idx", "actor", "id"),
    Index("audit_events_action_idx", "action", "id"),
    Index("audit_events_provider_idx", "provider", "id", postgresql_where=text("provider IS NOT NULL")),
    Index("audit_events_user_idx", "user_id", "id", postgresql_where=text("user_id IS NOT NULL")),
    Index("audit_events_grant_idx", "grant_id", "id"),
    Index("audit_events_request_idx", "request_id", "id", postgresql_where=text("request_id IS NOT NULL")),
)

audit_unchained = Table(  # events that the sealer has still to chain; a trigger of audit_events fills it
    "audit_unchained",
    metadata,
    Column("event_id", UUID, primary_key=True),
    # Rows come and go: what is read from the left must not be full of dead ones.
    postgresql_with={"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "2000"},
)

audit_chain = Table(  # each hash covers its event and the hash before
    "audit_chain",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", UUID, nullable=False, unique=True),
    Column("hash", LargeBinary, nullable=False),
    Column("key_id", UUID, nullable=False),  # the data key that the key of the hash is derived from
    Column("version", SmallInteger, nullable=False),  # of how an event becomes bytes
    Column("sealed_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("octet_length(hash) = 32", name="hash"),
    CheckConstraint("sequence > 0", name="sequence"),
)


def _end_of_chain(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("only_one", Boolean, primary_key=True, server_default=text("true")),
        Column("sequence", BigInteger, nullable=False),
        Column("hash", LargeBinary, nullable=False),
        CheckConstraint("only_one", name="only_one"),
        CheckConstraint("octet_length(hash) = 32", name="hash"),
    )


audit_head = _end_of_chain("audit_head")  # the last that was chained

audit_beginning = _end_of_chain("audit_beginning")  # the last that was pruned; only `prune_audit` writes it

audit_retention = Table(  # 0: for ever. The owner's word, by which `prune_audit` goes
    "audit_retention",
    metadata,
    Column("only_one", Boolean, primary_key=True, server_default=text("true")),
    Column("days", Integer, nullable=False),
    CheckConstraint("only_one", name="only_one"),
    CheckConstraint("days = 0 OR days >= 30", name="days"),
)
