"""`/breakers`: which upstreams are being left alone, and an operator's hand on that."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, BeforeValidator, Field

from app.api.access import Admin
from app.api.deps import percent_decode
from app.api.problems import responses
from app.api.services import Use
from app.breaker import BreakerState
from app.breakers.switch import BreakerView, Turn

router = APIRouter(tags=["Operations"])

BreakerName = Annotated[
    str,
    BeforeValidator(percent_decode),
    Path(description="The `name` of a breaker.", examples=["google:token:oauth2.googleapis.com"]),
]


class BreakerAnswer(BaseModel):
    """What guards one kind of endpoint at one host of a provider."""

    name: str = Field(description="`provider:kind:host`.")
    provider: str
    kind: str = Field(
        description="`token`: the token endpoint; `metadata`: what its issuer publishes; `api`: the provider's API."
    )
    host: str
    state: BreakerState = Field(description="`half_open`: one request is let through, to see.")
    failures: int = Field(description="Failed operations in a row that this replica met itself.")
    opened_at: datetime | None = Field(description="Null while it is closed.")
    next_probe_at: datetime | None = Field(description="When a request is let through again.")


class BreakerList(BaseModel):
    items: list[BreakerAnswer] = Field(description="In the order of their names.")


@router.get("/breakers", summary="List circuit breakers", responses=responses())
async def list_breakers(services: Use, _: Admin) -> BreakerList:
    """As this replica sees its upstreams: it opens by what it meets or hears of, and closes by what it sees itself."""
    return BreakerList(items=[_describe(view) for view in services.switch.listed()])


@router.post("/breakers/{name}/reset", summary="Close a breaker", responses=responses("not_found"))
async def reset_breaker(name: BreakerName, services: Use, admin: Admin) -> BreakerAnswer:
    """Requests go to the upstream again at once, on all replicas. That of an API also ends the pauses which that provider
    asked for with 429."""
    view = await services.switch.turn(name, Turn.RESET, actor=admin.name)
    if view.key.kind == "api":
        await services.pacer.free(view.key.provider)
    return _describe(view)


@router.post("/breakers/{name}/open", summary="Open a breaker", responses=responses("not_found"))
async def open_breaker(name: BreakerName, services: Use, admin: Admin) -> BreakerAnswer:
    """The upstream is left alone, on all replicas, for `BROKER_BREAKER_COOLDOWN_MAX_SECONDS`; then one request sees how
    it is."""
    return _describe(await services.switch.turn(name, Turn.OPEN, actor=admin.name))


def _describe(view: BreakerView) -> BreakerAnswer:
    return BreakerAnswer(
        name=view.key.name,
        provider=view.key.provider,
        kind=view.key.kind,
        host=view.key.host,
        state=view.state,
        failures=view.failures,
        opened_at=view.opened_at,
        next_probe_at=view.next_probe_at,
    )
