"""All routes. The API is mounted twice, canonically at `/api/v1`; operations live at the root only."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

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


def include(app: FastAPI) -> None:
    api = APIRouter()
    for resource in (
        *(batch, tokens, grant_list, grants, oauth, users),
        *(calendar, calendar_events, calendar_reading, calendar_webhooks, providers, clients),
        *(delivery_batches, deliveries, retry, cron),  # a batch is not a delivery that is called `batches`
        *(consumers, refresh, breakers, audit, proxy, cache),
    ):
        api.include_router(resource.router)
    app.include_router(operations.router)
    app.include_router(api, prefix=PREFIX)
    app.include_router(api, include_in_schema=False)
