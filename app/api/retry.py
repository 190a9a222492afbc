"""`/retry/metrics`: how deliveries go."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.api.deliveries import Deliverer
from app.api.problems import responses
from app.api.services import Use
from app.consumers.consumer import Scope

router = APIRouter(tags=["Deliveries"])


class RetryMetrics(BaseModel):
    """Of the deliveries that were accepted within the time, and of all that are pending or dead now."""

    since: datetime | None = Field(
        description="Where there were over 20,000: when the first of the latest 20,000 was accepted, of which this is told."
    )
    accepted: int
    delivered: int
    success_rate: float | None = Field(
        description="Of those that have arrived or died, the part that has arrived; null: none has."
    )
    attempts_per_delivery: float | None = Field(description="Of the same, on average.")
    attempts_p95: int | None = Field(description="Of the same: 95 of 100 had as many at most.")
    errors_by_category: dict[str, int] = Field(
        description="Deliveries whose last attempt failed, by the kind of trouble."
    )
    pending: int = Field(description="On their way at this moment, whenever accepted; counted up to 100,000.")
    oldest_pending_seconds: int | None = Field(
        description="Since the oldest of them was accepted; null: none."
    )
    dead: int = Field(description="All that are kept; counted up to 100,000.")


@router.get("/retry/metrics", summary="See how deliveries go", responses=responses())
async def get_retry_metrics(
    services: Use,
    consumer: Deliverer,
    hours: Annotated[int, Query(ge=1, le=720, description="How far to look back.")] = 24,
) -> RetryMetrics:
    """Of your own deliveries; with the scope `admin` of everybody's."""
    own = None if consumer.has(Scope.ADMIN) else consumer.id
    measured, standing = await services.delivery_measures.of(own, within=timedelta(hours=hours))
    ended = measured.delivered + measured.dead
    oldest = standing.oldest_at
    return RetryMetrics(
        since=measured.since,
        accepted=measured.accepted,
        delivered=measured.delivered,
        success_rate=round(measured.delivered / ended, 4) if ended else None,
        attempts_per_delivery=measured.attempts_mean,
        attempts_p95=measured.attempts_p95,
        errors_by_category=measured.errors,
        pending=standing.pending,
        oldest_pending_seconds=None
        if oldest is None
        else max(0, int((services.clock.now() - oldest).total_seconds())),
        dead=standing.dead,
    )
