"""`/deliveries/batches`: many records that have to arrive, and how far they are."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Response
from fastapi.responses import StreamingResponse

from app.api.access import as_seen
from app.api.answers import CursorQuery, LimitQuery, Page, page, read_cursor
from app.api.deliveries import (
    ACCEPTED,
    READ,
    Deliverer,
    ProviderQuery,
    UserQuery,
    may_see,
    selection,
    tell_accepted,
)
from app.api.delivery_answers import BatchDecision, DeliveryBatchAnswer, counts_of, describe_batch
from app.api.delivery_asked import DeliveryBatchBody, IdempotencyKey
from app.api.problems import responses
from app.api.services import Services, Use
from app.api.verbatim import VerbatimRoute, aside
from app.consumers.consumer import Consumer
from app.deliveries.accepting import Repeatable
from app.deliveries.reading import no_such_batch
from app.deliveries.stored import StoredBatch
from app.telemetry import note, security_event_later

router = APIRouter(tags=["Deliveries"], route_class=VerbatimRoute)

BatchPath = Annotated[UUID, Path(description="The `id` of a batch.")]
_RETRY_MILLISECONDS = 2000


@router.post(
    "/deliveries/batches",
    status_code=202,
    summary="Have many records delivered",
    dependencies=[READ],
    responses={
        202: {"description": "It is kept, and sent in requests of its own.", **ACCEPTED},
        **responses("unknown_provider", "grant_not_found", "conflict"),
    },
)
async def create_delivery_batch(
    body: DeliveryBatchBody,
    services: Use,
    consumer: Deliverer,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> DeliveryBatchAnswer:
    """Up to 100,000 records in 16 MiB. They are sent `records_per_request` at a time, `concurrency` requests at once. What is
    rejected is halved until only the bad records are dead; one that fails stops none of the others."""
    note(provider=body.provider)
    wanted = await aside(body.wanted)
    wanted = replace(wanted, key=as_seen(services, consumer, wanted.key))
    repeatable = await aside(
        lambda: Repeatable.of(idempotency_key, "batch", body.parameters(), wanted.records)
    )
    accepted = await services.acceptor.accept_batch(consumer, wanted, repeatable=repeatable)
    tell_accepted(response, f"deliveries/batches/{accepted.id}", accepted)
    return describe_batch(await services.delivery_reader.batch(accepted.id), services.base_url)


@router.get("/deliveries/batches", summary="List batches", responses=responses())
async def list_delivery_batches(
    services: Use,
    consumer: Deliverer,
    provider: ProviderQuery = None,
    user_id: UserQuery = None,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> Page[DeliveryBatchAnswer]:
    """Your own, the latest first; with the scope `admin` everybody's."""
    wanted = selection(consumer, provider=provider, user_id=user_id)
    found = await services.delivery_reader.batches(wanted, before=read_cursor(cursor), limit=limit + 1)
    return page(
        found,
        limit,
        id_of=lambda each: each.id,
        as_item=lambda each: describe_batch(each, services.base_url),
    )


@router.get("/deliveries/batches/{batch_id}", summary="Look at a batch", responses=responses("not_found"))
async def get_delivery_batch(batch_id: BatchPath, services: Use, consumer: Deliverer) -> DeliveryBatchAnswer:
    """How far it is, in records."""
    return describe_batch(await _visible(services, consumer, batch_id), services.base_url)


@router.get(
    "/deliveries/batches/{batch_id}/events",
    summary="Watch a batch",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events: `progress` at once and whenever the counts have changed, `done` at the end. Their "
            "data are the counts of the batch.",
            "content": {"text/event-stream": {"schema": {}}},
        },
        **responses("not_found"),
    },
)
async def watch_delivery_batch(batch_id: BatchPath, services: Use, consumer: Deliverer) -> StreamingResponse:
    """Ends with the batch; and after ten minutes, or where the service restarts, to be asked anew, which `EventSource` does by
    itself."""
    batch = await _visible(services, consumer, batch_id)
    turns = services.progress.of(batch)
    first = await anext(turns, None)  # now, while it can still be refused
    return StreamingResponse(
        _events(turns, first),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@router.post(
    "/deliveries/batches/{batch_id}/replay",
    summary="Send what is dead of a batch once more",
    responses=responses("not_found", "conflict"),
)
async def replay_delivery_batch(batch_id: BatchPath, services: Use, consumer: Deliverer) -> BatchDecision:
    """All of its deliveries that are dead are queued again, each under its own id and with eight more attempts."""
    batch = await _visible(services, consumer, batch_id)
    records = await services.decider.replay_dead(batch, actor=consumer.name)
    return await _decided(services, batch_id, records)


@router.post(
    "/deliveries/batches/{batch_id}/cancel",
    summary="Cancel what waits of a batch",
    responses=responses("not_found"),
)
async def cancel_delivery_batch(batch_id: BatchPath, services: Use, consumer: Deliverer) -> BatchDecision:
    """What waits is not sent any more; what is being sent at this moment ends as it ends. May be repeated."""
    batch = await _visible(services, consumer, batch_id)
    records = await services.decider.cancel_waiting(batch, actor=consumer.name)
    return await _decided(services, batch_id, records)


async def _decided(services: Services, batch_id: UUID, records: int) -> BatchDecision:
    batch = await services.delivery_reader.batch(batch_id)
    return BatchDecision(records=records, batch=describe_batch(batch, services.base_url))


async def _visible(services: Services, consumer: Consumer, batch_id: UUID) -> StoredBatch:
    """Raises NotFound alike for one that is absent and for one that the consumer may not see."""
    batch = await services.delivery_reader.batch(batch_id)
    if not may_see(consumer, batch.consumer_id, batch.provider, batch.user_id):
        security_event_later("foreign_delivery", batch_id=str(batch_id))
        raise no_such_batch()
    note(provider=batch.provider)
    return batch


async def _events(
    turns: AsyncGenerator[StoredBatch | None, None], first: StoredBatch | None
) -> AsyncIterator[str]:
    """As the HTML standard writes them (section 9.2)."""
    async with aclosing(turns):
        yield f"retry: {_RETRY_MILLISECONDS}\n\n"
        if first is not None:
            yield _event(first)
        async for each in turns:
            yield ": nothing new\n\n" if each is None else _event(each)


def _event(batch: StoredBatch) -> str:
    data = json.dumps(counts_of(batch).model_dump(mode="json"))
    progress = f"event: progress\ndata: {data}\n\n"
    return f"{progress}event: done\ndata: {data}\n\n" if batch.has_ended else progress
