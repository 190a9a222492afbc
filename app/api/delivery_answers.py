"""Deliveries and batches as they are answered."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from app.deliveries.delivery import DeliveryStatus
from app.deliveries.reading import ShownDelivery
from app.deliveries.stored import BatchStatus, StoredBatch, StoredDelivery
from app.telemetry import redact_text


class DeliveryResponse(BaseModel):
    """The provider's last answer, so far as it may be shown."""

    status: int
    headers: dict[str, str]
    body: Any
    is_cut: bool = Field(description="Whether it was longer than what is kept.")


class DeliveryAnswer(BaseModel):
    """A delivery, and how far it is."""

    id: UUID = Field(description="Sent to the provider as `Idempotency-Key` with each attempt.")
    status: DeliveryStatus = Field(
        description="`queued`, `sending`, `retrying`: it is on its way. `delivered`, `dead`, `cancelled`: it has ended."
    )
    attempts: int = Field(description="How often it was tried.")
    max_attempts: int = Field(description="After which it is dead.")
    category: str | None = Field(description="The kind of trouble of the last attempt, if it failed.")
    code: str | None = Field(
        description="What it was, more closely; `split`: it was rejected, and its halves took its place."
    )
    last_status: int | None = Field(description="The provider's last HTTP status.")
    next_attempt_at: datetime | None = Field(
        description="Null: it has ended, is being sent, or waits for its turn in its batch."
    )
    provider: str
    user_id: str
    account: str
    method: str
    path: str = Field(description="Without the query.")
    retry_on: list[int]
    batch_id: UUID | None
    parent_id: UUID | None = Field(description="The rejected delivery that this is a half of.")
    first_record: int | None = Field(description="Of a batch: the place of its first record there, from 0.")
    records: int = Field(description="Of a batch: how many it has.")
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    response: DeliveryResponse | None = Field(
        default=None, description="Where one is looked at: the provider's last answer, if there was one."
    )


class DeliveryAttemptAnswer(BaseModel):
    """How one attempt ended."""

    number: int
    at: datetime
    milliseconds: int | None
    status: int | None = Field(description="The provider's HTTP status; null: nothing came back.")
    category: str | None = Field(description="Null: it arrived.")
    code: str | None
    replica: str = Field(description="Which process sent it.")


class DeliveryRequest(BaseModel):
    """What is sent, so far as it may be shown: keys are kept, secret values blanked, long ones cut."""

    query: str | None = Field(description="Of where it is sent; null: there is none.")
    headers: dict[str, str]
    body: Any = Field(description="Of a batch the first records.")


class DeliveryDetail(DeliveryAnswer):
    """A delivery with all that it takes to understand what became of it."""

    history: list[DeliveryAttemptAnswer] = Field(description="The last 100 attempts, the first one first.")
    request: DeliveryRequest


class BatchCounts(BaseModel):
    """Records by the state of the delivery that they are in. Together they are `total`."""

    status: BatchStatus = Field(
        description="`queued`: nothing was sent yet. `sending`: it is on its way. Ended: `delivered` (all arrived), `partial` "
        "(some are dead), `dead` (all are), `cancelled` (some were never sent)."
    )
    total: int
    queued: int
    sending: int
    retrying: int
    delivered: int
    dead: int
    cancelled: int


class DeliveryBatchAnswer(BatchCounts):
    """A batch, and how far it is."""

    id: UUID
    items_url: str = Field(description="Its deliveries.")
    events_url: str = Field(description="The same counts, as they change.")
    provider: str
    user_id: str
    account: str
    method: str
    path: str = Field(description="Without the query.")
    records_per_request: int
    concurrency: int
    wrap: str | None
    created_at: datetime
    cancelled_at: datetime | None


class BatchDecision(BaseModel):
    """What was decided about a batch."""

    records: int = Field(description="How many records it was decided about.")
    batch: DeliveryBatchAnswer


def describe_delivery(delivery: StoredDelivery) -> DeliveryAnswer:
    return DeliveryAnswer(**_fields(delivery))


def describe_shown(shown: ShownDelivery) -> DeliveryDetail:
    answer = shown.answer
    return DeliveryDetail(
        **_fields(shown.delivery),
        history=[DeliveryAttemptAnswer.model_validate(each, from_attributes=True) for each in shown.attempts],
        request=DeliveryRequest(query=shown.query, headers=shown.headers, body=shown.body),
        response=None if answer is None else DeliveryResponse.model_validate(answer, from_attributes=True),
    )


def counts_of(batch: StoredBatch) -> BatchCounts:
    return BatchCounts(
        status=batch.status,
        total=batch.total,
        **{status.value: batch.count(status) for status in DeliveryStatus},
    )


def describe_batch(batch: StoredBatch, base_url: str) -> DeliveryBatchAnswer:
    names = (
        *("id", "provider", "user_id", "account", "method", "records_per_request", "concurrency", "wrap"),
        *("created_at", "cancelled_at"),
    )
    return DeliveryBatchAnswer(
        **counts_of(batch).model_dump(),
        **{name: getattr(batch, name) for name in names},
        path=redact_text(batch.path),
        items_url=f"{base_url}/api/v1/deliveries?batch_id={batch.id}",
        events_url=f"{base_url}/api/v1/deliveries/batches/{batch.id}/events",
    )


def _fields(delivery: StoredDelivery) -> dict[str, Any]:
    names = DeliveryAnswer.model_fields.keys() - {"path", "retry_on", "response"}
    return {
        **{name: getattr(delivery, name) for name in names},
        "path": redact_text(delivery.path),
        "retry_on": list(delivery.retry_on or ()),
    }
