"""`/deliveries`: calls to providers' APIs that are kept until they arrive or a person decides."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from app.api.access import as_seen, consumer_with
from app.api.answers import CursorQuery, LimitQuery, Page, page, read_cursor
from app.api.delivery_answers import DeliveryAnswer, DeliveryDetail, describe_delivery, describe_shown
from app.api.delivery_asked import DeliveryBody, IdempotencyKey
from app.api.deps import OpaqueName
from app.api.problems import responses
from app.api.services import Services, Use
from app.api.verbatim import VerbatimRoute, read_body
from app.consumers.consumer import Consumer, Scope
from app.deliveries.accepting import Accepted, Repeatable
from app.deliveries.delivery import DeliveryStatus
from app.deliveries.reading import no_such_delivery
from app.deliveries.stored import DeliverySelection, StoredDelivery
from app.deliveries.wanted import MAX_DELAY
from app.errors import Category, ValidationFailed
from app.telemetry import note, security_event_later

router = APIRouter(tags=["Deliveries"], route_class=VerbatimRoute)

Deliverer = Annotated[Consumer, Depends(consumer_with(Scope.DELIVERIES))]
DeliveryPath = Annotated[UUID, Path(description="The `id` of a delivery.")]
ProviderQuery = Annotated[OpaqueName | None, Query(description="Those to this provider.")]
UserQuery = Annotated[OpaqueName | None, Query(description="Those of this user.")]


async def _read(request: Request, _consumer: Deliverer) -> None:
    await read_body(request)


READ = Depends(_read)
ACCEPTED: dict[str, Any] = {
    "headers": {
        "Location": {"description": "Where it is looked at.", "schema": {"type": "string"}},
        "Idempotency-Replayed": {
            "description": "`true`: the same request came before, with the same key.",
            "schema": {"type": "string"},
        },
    }
}


@router.post(
    "/deliveries",
    status_code=202,
    summary="Have a call delivered",
    dependencies=[READ],
    responses={
        202: {"description": "It is kept, and sent as soon as it is due.", **ACCEPTED},
        **responses("unknown_provider", "grant_not_found", "conflict"),
    },
)
async def create_delivery(
    body: DeliveryBody,
    services: Use,
    consumer: Deliverer,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> DeliveryAnswer:
    """Once this answers, the call is kept: it is sent with the grant's token, and again where that may help, until it has arrived
    or `max_attempts` are over."""
    note(provider=body.provider)
    wanted = body.wanted()
    _require_soon(services, body)
    wanted = replace(wanted, key=as_seen(services, consumer, wanted.key))
    given = [] if body.body is None else [body.body.text]
    repeatable = Repeatable.of(idempotency_key, "delivery", body.parameters(), given)
    accepted = await services.acceptor.accept(consumer, wanted, repeatable=repeatable)
    tell_accepted(response, f"deliveries/{accepted.id}", accepted)
    return describe_delivery(await services.delivery_reader.get(accepted.id))


@router.get("/deliveries", summary="List deliveries", responses=responses())
async def list_deliveries(
    services: Use,
    consumer: Deliverer,
    status: Annotated[DeliveryStatus | None, Query(description="Those in this state.")] = None,
    provider: ProviderQuery = None,
    user_id: UserQuery = None,
    batch_id: Annotated[UUID | None, Query(description="Those of this batch.")] = None,
    category: Annotated[
        Category | None, Query(description="Those whose last attempt had this trouble.")
    ] = None,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> Page[DeliveryAnswer]:
    """Your own, the latest first; with the scope `admin` everybody's. Dead letters: `?status=dead`."""
    wanted = selection(
        consumer,
        status=status,
        provider=provider,
        user_id=user_id,
        batch_id=batch_id,
        category=category,
    )
    found = await services.delivery_reader.listed(wanted, before=read_cursor(cursor), limit=limit + 1)
    return page(found, limit, id_of=lambda each: each.id, as_item=describe_delivery)


@router.get("/deliveries/{delivery_id}", summary="Look at a delivery", responses=responses("not_found"))
async def get_delivery(delivery_id: DeliveryPath, services: Use, consumer: Deliverer) -> DeliveryDetail:
    """With its attempts, what is sent and what was answered last; secrets in them are blanked, and what is long is cut."""
    await _visible(services, consumer, delivery_id)
    return describe_shown(await services.delivery_reader.shown(delivery_id))


@router.post(
    "/deliveries/{delivery_id}/replay",
    summary="Send a delivery once more",
    responses=responses("not_found", "conflict"),
)
async def replay_delivery(delivery_id: DeliveryPath, services: Use, consumer: Deliverer) -> DeliveryAnswer:
    """For one that is dead or cancelled: it is queued again under the same id, by which the provider knows it, with eight more
    attempts."""
    delivery = await _visible(services, consumer, delivery_id)
    await services.decider.replay(delivery, actor=consumer.name)
    return describe_delivery(await services.delivery_reader.get(delivery_id))


@router.post(
    "/deliveries/{delivery_id}/cancel",
    summary="Cancel a delivery",
    responses=responses("not_found", "conflict"),
)
async def cancel_delivery(delivery_id: DeliveryPath, services: Use, consumer: Deliverer) -> DeliveryAnswer:
    """For one that waits: it is not sent any more. One that is being sent at this moment is a `conflict`: try again shortly. May
    be repeated."""
    delivery = await _visible(services, consumer, delivery_id)
    await services.decider.cancel(delivery, actor=consumer.name)
    return describe_delivery(await services.delivery_reader.get(delivery_id))


def selection(consumer: Consumer, **wanted: Any) -> DeliverySelection:
    """Of those that the consumer may see: its own, and an administrator everybody's."""
    return DeliverySelection(
        consumer_id=None if consumer.has(Scope.ADMIN) else consumer.id,
        visible_providers=consumer.providers,
        visible_users=consumer.users,
        **wanted,
    )


def may_see(consumer: Consumer, owner_id: UUID, provider: str, user_id: str) -> bool:
    """Whether a delivery or a batch exists at all for the consumer."""
    if not consumer.has(Scope.ADMIN) and consumer.id != owner_id:
        return False
    return consumer.may_see(provider, user_id)


def tell_accepted(response: Response, path: str, accepted: Accepted) -> None:
    response.headers["Location"] = f"/api/v1/{path}"
    if accepted.is_replayed:
        response.headers["Idempotency-Replayed"] = "true"


async def _visible(services: Services, consumer: Consumer, delivery_id: UUID) -> StoredDelivery:
    """Raises NotFound alike for one that is absent and for one that the consumer may not see."""
    delivery = await services.delivery_reader.get(delivery_id)
    if not may_see(consumer, delivery.consumer_id, delivery.provider, delivery.user_id):
        security_event_later("foreign_delivery", delivery_id=str(delivery_id))
        raise no_such_delivery()
    note(provider=delivery.provider)
    return delivery


def _require_soon(services: Services, body: DeliveryBody) -> None:
    if body.not_before is None or body.not_before <= services.clock.now() + MAX_DELAY:
        return
    sentence = f"must lie {MAX_DELAY // timedelta(days=1)} days ahead at most"
    raise ValidationFailed(f"not_before {sentence}.", fields={"body.not_before": sentence})
