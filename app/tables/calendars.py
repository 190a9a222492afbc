"""What the calendar APIs of grants hold, kept current."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
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

from app.tables.base import metadata, time_column

calendar_accounts = Table(  # a grant whose calendars are synced
    "calendar_accounts",
    metadata,
    Column("grant_id", UUID, ForeignKey("grants.id"), primary_key=True),
    Column("scheduled", Boolean, nullable=False, server_default=text("false")),  # also when nobody asks
    time_column("listed_at"),  # when the list of its calendars was last asked for
    Column("lineage_id", UUID),  # of the grant, then
    time_column("next_list_at"),
    Column("failures", Integer, nullable=False, server_default="0"),  # of reading that list, in a row
    Column("last_error", JSONB(none_as_null=True)),
    time_column("created_at", required=True),
    Index("calendar_accounts_due_idx", "next_list_at", postgresql_where=text("scheduled")),
)

calendars = Table(
    "calendars",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("grant_id", UUID, ForeignKey("calendar_accounts.grant_id", ondelete="CASCADE"), nullable=False),
    Column("external_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("zone", Text),
    Column("access_role", Text, nullable=False),
    Column("is_primary", Boolean, nullable=False),
    Column("etag", Text),
    time_column("deleted_at"),  # when it was no longer in the list
    time_column("created_at", required=True),
    time_column("updated_at", required=True),
    UniqueConstraint("grant_id", "external_id"),
)

calendar_sync_states = Table(
    "calendar_sync_states",
    metadata,
    Column("id", UUID, ForeignKey("calendars.id", ondelete="CASCADE"), primary_key=True),  # the calendar's
    Column("grant_id", UUID, nullable=False),
    Column("sealed_cursor", LargeBinary),  # null: the next sync is a baseline
    Column("params_hash", LargeBinary),  # of what the cursor was made with
    Column("generation", BigInteger, nullable=False, server_default="0"),  # one more with each baseline begun
    time_column("window_since"),  # of the cursor; null: it has none
    time_column("window_until"),
    time_column("last_full_at"),
    time_column("full_due_at"),  # when the next baseline is due, whatever the cursor is worth
    time_column("last_ok_at"),
    Column("last_error", JSONB(none_as_null=True)),
    Column("failures", Integer, nullable=False, server_default="0"),  # in a row
    Column("scheduled", Boolean, nullable=False),  # as its account, for the index
    time_column("next_attempt_at"),  # null: at any time, but not by the schedule
    Column("lease_owner", UUID),
    time_column("lease_until"),
    time_column("notified_at"),  # of a change since it was last claimed
    CheckConstraint("(lease_owner IS NULL) = (lease_until IS NULL)", name="lease_is_whole"),
    Index("calendar_sync_states_due_idx", "next_attempt_at", postgresql_where=text("scheduled")),
    postgresql_with={"fillfactor": "70"},
)

calendar_events = Table(
    "calendar_events",
    metadata,
    Column("calendar_id", UUID, ForeignKey("calendars.id", ondelete="CASCADE"), primary_key=True),
    Column("external_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("ical_uid", Text),
    Column("master_id", Text),
    Column("original_start", Text),  # a date, or an instant in UTC
    time_column("start_at"),
    time_column("end_at"),
    Column("start_date", Date),
    Column("end_date", Date),
    Column("zone", Text),
    Column("recurrence", ARRAY(Text)),
    Column("etag", Text),
    time_column("provider_updated_at"),
    Column("raw", JSONB, nullable=False),
    Column("generation", BigInteger, nullable=False),  # of the baseline that last saw it
    time_column("since"),  # nothing of it lies before; null: it has no time
    time_column("until"),  # nor after; null: it has no end
    CheckConstraint("kind IN ('single', 'series', 'instance', 'exception')", name="kind"),
    CheckConstraint("status = 'cancelled' OR since IS NOT NULL", name="living_has_a_time"),
    Index(
        "calendar_events_master_idx",
        "calendar_id",
        "master_id",
        postgresql_where=text("master_id IS NOT NULL"),
    ),
    Index("calendar_events_until_idx", "calendar_id", "until"),
)

push_channels = Table(  # what a provider tells us of changes by
    "push_channels",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("grant_id", UUID, nullable=False),
    Column("calendar_id", UUID, ForeignKey("calendars.id", ondelete="CASCADE"), nullable=False),
    Column("provider", Text, nullable=False),
    Column("channel_id", Text),  # the provider's name for it; null: it is being made
    Column("resource_id", Text),
    Column(
        "secret_hash", LargeBinary, nullable=False
    ),  # SHA-256 of what each notification has to bring along
    Column("state", Text, nullable=False, server_default="opening"),
    Column("last_message_number", BigInteger),
    time_column("expires_at"),
    time_column("next_attempt_at", required=True),  # when it is to be renewed, made or stopped
    Column("failures", Integer, nullable=False, server_default="0"),
    time_column("created_at", required=True),
    CheckConstraint("octet_length(secret_hash) = 32", name="secret_hash"),
    CheckConstraint("state IN ('opening', 'open', 'closing', 'refused')", name="state"),
    Index("push_channels_calendar_idx", "calendar_id"),
    Index(
        "push_channels_channel_idx",
        "provider",
        "channel_id",
        unique=True,
        postgresql_where=text("channel_id IS NOT NULL"),
    ),
    Index("push_channels_due_idx", "next_attempt_at"),
)

sync_runs = Table(  # what a sync of one grant's calendars came to
    "sync_runs",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("grant_id", UUID, ForeignKey("calendar_accounts.grant_id", ondelete="CASCADE"), primary_key=True),
    Column("trigger", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("error_type", Text),
    Column("message", Text, nullable=False),
    Column("calendars", JSONB, nullable=False),
    time_column("started_at", required=True),
    time_column("ended_at", required=True),
    Index("sync_runs_grant_idx", "grant_id", "id"),
    Index("sync_runs_ended_idx", "ended_at"),
)
