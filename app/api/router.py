"""All routes. The API is mounted twice, canonically at `/api/v1`; operations live at the root only."""

from __future__ import annotations

from fastapi import FastAPI

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


def include(app: FastAPI) -> None:
    """Each router by itself, in two turns: FastAPI builds the routes of a router of routers once more, to look at them."""
    app.include_router(operations.router)
    for resource in _RESOURCES:
        app.include_router(resource.router, prefix=PREFIX)
    for resource in _RESOURCES:
        app.include_router(resource.router, include_in_schema=False)
