"""Calls to providers' APIs that are kept until they arrive or a person decides, and how often APIs may be asked."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from app.tables.base import empty_object, metadata, time_column

delivery_batches = Table(
    "delivery_batches",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("consumer_id", UUID, nullable=False),  # no foreign key: it may go, and what it asked for stays
    Column("consumer", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("total", Integer, nullable=False),  # records
    Column("records_per_request", Integer, nullable=False),
    Column("concurrency", Integer, nullable=False),  # of its deliveries, being sent at once by all replicas
    Column("sending", Integer, nullable=False, server_default="0"),  # of its deliveries at this moment
    Column("wrap", Text),  # the name of the field around the records
    time_column("created_at", required=True),
    time_column("cancelled_at"),
    time_column(
        "forgotten_at"
    ),  # all of it ended long ago: it is there for nobody, and its rows are being deleted
    CheckConstraint("total > 0 AND records_per_request > 0 AND concurrency > 0", name="sizes"),
    CheckConstraint("sending BETWEEN 0 AND concurrency", name="places"),
    Index("delivery_batches_consumer_idx", "consumer_id", "id"),
    Index("delivery_batches_created_idx", "created_at", "id", postgresql_where=text("forgotten_at IS NULL")),
    Index(
        "delivery_batches_cancelled_idx", "cancelled_at", postgresql_where=text("cancelled_at IS NOT NULL")
    ),
    Index(
        "delivery_batches_forgotten_idx", "forgotten_at", postgresql_where=text("forgotten_at IS NOT NULL")
    ),
    postgresql_with={"fillfactor": "50"},
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", UUID, primary_key=True),  # the Idempotency-Key that is sent upstream
    Column("consumer_id", UUID, nullable=False),
    Column("consumer", Text, nullable=False),
    Column("batch_id", UUID, ForeignKey("delivery_batches.id", ondelete="CASCADE")),
    Column("parent_id", UUID),  # the rejected one that this is a half of
    Column("first_record", Integer),  # its place in the batch, from 0
    Column("records", Integer, nullable=False, server_default="1"),  # 0: its halves have them
    Column("provider", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("grant_id", UUID, nullable=False),  # for which it was accepted: no other one's token goes with it
    Column("method", Text, nullable=False),
    Column("path", Text, nullable=False),  # below the API's base; its query is sealed
    Column("sealed_request", LargeBinary, nullable=False),  # query, headers and body
    Column("retry_on", ARRAY(Integer)),  # statuses that are tried again, whatever they mean elsewhere
    Column("status", Text, nullable=False, server_default="queued"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("max_attempts", Integer, nullable=False),
    Column("unknowns", Integer, nullable=False, server_default="0"),  # attempts whose outcome is not known
    time_column("put_back_since"),  # claimed since then without being tried
    Column("category", Text),  # of the last attempt, where it failed
    Column("code", Text),  # `split`: rejected, and sent again as two halves, which have its records
    Column("last_status", Integer),
    Column("sealed_response", LargeBinary),  # the last answer, cut to what may be kept
    time_column("next_attempt_at"),  # null: not due by itself; of a batch: it waits for its turn
    Column("claim_id", UUID),  # of who sends it now
    Column("replica", Text),
    time_column("sending_since"),
    time_column("created_at", required=True),
    time_column("updated_at", required=True),
    time_column("ended_at"),
    CheckConstraint(
        "status IN ('queued', 'sending', 'delivered', 'retrying', 'dead', 'cancelled')", name="status"
    ),
    CheckConstraint("next_attempt_at IS NULL OR status IN ('queued', 'retrying')", name="due_is_pending"),
    CheckConstraint(
        "(status = 'sending') = (claim_id IS NOT NULL) AND (claim_id IS NULL) = (sending_since IS NULL)",
        name="claim_is_whole",
    ),
    CheckConstraint("(status IN ('delivered', 'dead', 'cancelled')) = (ended_at IS NOT NULL)", name="ended"),
    Index(  # by provider: one that is left alone keeps nobody from finding what is due at the others
        "deliveries_due_idx",
        "provider",
        "next_attempt_at",
        "id",
        postgresql_where=text("next_attempt_at IS NOT NULL"),
    ),
    Index(  # those of a batch that wait for their turn, and those that have it
        "deliveries_turn_idx",
        "batch_id",
        "next_attempt_at",
        "id",
        postgresql_where=text("batch_id IS NOT NULL AND status IN ('queued', 'retrying')"),
    ),
    Index("deliveries_sending_idx", "sending_since", postgresql_where=text("status = 'sending'")),
    Index("deliveries_batch_idx", "batch_id", "status", "id", postgresql_include=["records"]),
    Index("deliveries_consumer_idx", "consumer_id", "id"),
    Index("deliveries_status_idx", "consumer_id", "status", "id"),
    Index("deliveries_user_idx", "user_id", "id"),
    Index(
        "deliveries_ended_idx",
        "status",
        "ended_at",
        postgresql_where=text("ended_at IS NOT NULL AND batch_id IS NULL"),
    ),
    Index(
        "deliveries_batch_ended_idx",
        "batch_id",
        "ended_at",
        postgresql_where=text("ended_at IS NOT NULL AND batch_id IS NOT NULL"),
    ),
    postgresql_with={"fillfactor": "70"},
)

delivery_attempts = Table(
    "delivery_attempts",
    metadata,
    Column("id", UUID, primary_key=True),  # the claim's
    Column("delivery_id", UUID, ForeignKey("deliveries.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    time_column("at", required=True),
    Column("milliseconds", Integer),
    Column("status", Integer),  # the provider's; null: nothing came back
    Column("category", Text),  # null: it arrived
    Column("code", Text),
    Column("replica", Text, nullable=False),
    UniqueConstraint("delivery_id", "number"),
    Index("delivery_attempts_at_idx", "at"),
)

idempotency_keys = Table(  # what consumers' own keys have led to
    "idempotency_keys",
    metadata,
    Column("consumer_id", UUID, primary_key=True),
    Column("key_sha256", LargeBinary, primary_key=True),
    Column("parameters_sha256", LargeBinary, nullable=False),  # of the request that came with it
    Column("resource_id", UUID, nullable=False),
    time_column("created_at", required=True),
    Index("idempotency_keys_created_idx", "created_at"),
)

api_rates = Table(  # what is reserved of what a provider's API may be asked
    "api_rates",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("grant_id", UUID, primary_key=True),  # nil: of all grants together
    Column(
        "windows", JSONB, nullable=False, server_default=empty_object
    ),  # by their seconds, calls by cell of time
    Column(
        "askers", JSONB, nullable=False, server_default=empty_object
    ),  # replicas, and when they last reserved
    time_column("held_until"),  # the provider said so
    time_column("void_at", required=True),  # from then on it says nothing that its absence does not
    Index("api_rates_held_idx", "held_until", postgresql_where=text("held_until IS NOT NULL")),
    Index("api_rates_void_idx", "void_at"),
    postgresql_with={"fillfactor": "50"},
)
