"""All routes. The API is mounted twice, canonically at `/api/v1`; operations live at the root only."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from app.api import (
    audit,
    batch,
    breakers,
    cache,
    calendar,
    calendar_events,
    calendar_reading,
    calendar_webhooks,
    clients,
    consumers,
    cron,
    deliveries,
    delivery_batches,
    grant_list,
    grants,
    oauth,
    operations,
    providers,
    proxy,
    refresh,
    retry,
    tokens,
    users,
)

PREFIX = "/api/v1"


_RESOURCES = (
    *(batch, tokens, grant_list, grants, oauth, users),
    *(calendar, calendar_events, calendar_reading, calendar_webhooks, providers, clients),
    *(delivery_batches, deliveries, retry, cron),  # a batch is not a delivery that is called `batches`
    *(consumers, refresh, breakers, audit, proxy, cache),
)


def _operation_id(route: APIRoute) -> str:
    """The function's name, which is what generated clients will call it."""
    return route.name


def _routes() -> list[BaseRoute]:
    """Each router by itself: FastAPI builds the routes of a router of routers twice."""
    every = APIRouter(generate_unique_id_function=_operation_id)
    every.include_router(operations.router)
    for resource in _RESOURCES:
        every.include_router(resource.router, prefix=PREFIX)
    for resource in _RESOURCES:
        every.include_router(resource.router, include_in_schema=False)
    return every.routes


ROUTES = tuple(_routes())  # once for all applications of this process, since it takes a while
