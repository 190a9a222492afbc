"""Deliveries and batches as they are kept, without what they send. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from app.deliveries.delivery import DeliveryStatus
from app.grants.grant import GrantKey

PENDING = (DeliveryStatus.QUEUED, DeliveryStatus.SENDING, DeliveryStatus.RETRYING)


class BatchStatus(StrEnum):
    QUEUED = "queued"  # nothing of it was sent yet
    SENDING = "sending"
    DELIVERED = "delivered"
    PARTIAL = "partial"  # ended: some records arrived, and some are dead
    DEAD = "dead"
    CANCELLED = "cancelled"  # ended, and some records never were sent


@dataclass(frozen=True, slots=True)
class StoredDelivery:
    """One row, without what is sealed in it."""

    id: UUID
    consumer_id: UUID
    batch_id: UUID | None
    parent_id: UUID | None
    first_record: int | None
    records: int
    provider: str
    user_id: str
    account: str
    method: str
    path: str
    retry_on: tuple[int, ...] | None
    status: DeliveryStatus
    attempts: int
    max_attempts: int
    category: str | None
    code: str | None
    last_status: int | None
    next_attempt_at: datetime | None
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None

    @property
    def key(self) -> GrantKey:
        return GrantKey(self.provider, self.user_id, self.account)


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a delivery sends, and the provider's last answer; what they are is told by who opens them."""

    request: bytes = field(repr=False)
    response: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    """How one attempt ended. `category` None: it arrived; `status` None: nothing came back."""

    number: int
    at: datetime
    milliseconds: int | None
    status: int | None
    category: str | None
    code: str | None
    replica: str


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch; `records` by the state of the delivery that they are in now."""

    id: UUID
    consumer_id: UUID
    provider: str
    user_id: str
    account: str
    method: str
    path: str
    total: int
    records_per_request: int
    concurrency: int
    wrap: str | None
    created_at: datetime
    cancelled_at: datetime | None
    records: Mapping[DeliveryStatus, int]

    @property
    def key(self) -> GrantKey:
        return GrantKey(self.provider, self.user_id, self.account)

    def count(self, *statuses: DeliveryStatus) -> int:
        return sum(self.records.get(status, 0) for status in statuses)

    @property
    def status(self) -> BatchStatus:
        if self.count(*PENDING):
            return BatchStatus.QUEUED if self._is_untouched else BatchStatus.SENDING
        if self.count(DeliveryStatus.CANCELLED):
            return BatchStatus.CANCELLED
        if not self.count(DeliveryStatus.DEAD):
            return BatchStatus.DELIVERED
        return BatchStatus.PARTIAL if self.count(DeliveryStatus.DELIVERED) else BatchStatus.DEAD

    @property
    def has_ended(self) -> bool:
        return not self.count(*PENDING)

    @property
    def _is_untouched(self) -> bool:
        return self.count(DeliveryStatus.QUEUED) == self.count(*DeliveryStatus)


@dataclass(frozen=True)
class DeliverySelection:
    """Which deliveries are listed; what is left out does not restrict. `consumer_id` None: everybody's. The `visible_*` are
    what the consumer may see: users exactly or by `prefix*`."""

    consumer_id: UUID | None = None
    status: str | None = None
    provider: str | None = None
    user_id: str | None = None
    batch_id: UUID | None = None
    category: str | None = None
    visible_providers: frozenset[str] | None = None
    visible_users: tuple[str, ...] | None = None
