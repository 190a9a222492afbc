"""A user's connections together: how they are, and renewed at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from app.api.access import consumer_with, grants_seen
from app.api.answers import GrantAnswer, describe
from app.api.deps import Body, OpaqueName, ProviderPath, UserPath
from app.api.problems import Problem, problem_of, responses
from app.api.services import Services, Use
from app.consumers.consumer import Consumer, Scope
from app.errors import BrokerError, ReconnectRequired
from app.grants.grant import Grant, GrantKey, Health, Status, not_found
from app.grants.token import DEFAULT_MIN_TTL, Need
from app.grants.verdict import Overall, overall, sentence

router = APIRouter(tags=["OAuth"])

Reader = Annotated[Consumer, Depends(consumer_with(Scope.GRANTS_READ))]


class ConnectionHealth(BaseModel):
    """How one connection is."""

    grant: GrantAnswer
    health: Health = Field(description="What to make of it at this moment.")
    expires_in: int | None = Field(description="Seconds; null: the token does not expire.")
    message: str = Field(description="A sentence for the user.")


class UserHealth(BaseModel):
    """How several connections are, and what that comes to."""

    items: list[ConnectionHealth]
    overall: Overall = Field(description="`unhealthy`: an account has to be connected again.")


class RefreshTokensBody(Body):
    """Whose connections are to be renewed."""

    user_id: OpaqueName = Field(description="Your name for the user.")


class Refreshed(BaseModel):
    """What became of one connection."""

    grant_id: UUID
    account: str
    outcome: Literal["refreshed", "fresh", "failed", "reconnect_required", "skipped"] = Field(
        description="`fresh`: there was no need. `skipped`: there is no refresh token, and the token still works."
    )
    expires_at: datetime | None = Field(description="When its access token ends; null: never.")
    problem: Problem | None = Field(default=None, description="Why it was not renewed.")


class RefreshTokensAnswer(BaseModel):
    """What became of each connection."""

    items: list[Refreshed]
    refreshed: int
    failed: int = Field(description="Those that failed, and those that have to be connected again.")


@router.get(
    "/oauth/{provider}/health-check",
    summary="How a user's connections to a provider are",
    responses=responses("unknown_provider", "grant_not_found"),
)
async def get_provider_health(
    provider: ProviderPath,
    user_id: Annotated[OpaqueName, Query(description="Your name for the user.")],
    services: Use,
    consumer: Reader,
) -> UserHealth:
    """Every account of the user there. Asks the provider nothing."""
    services.clients.get(provider)
    grants = await grants_seen(services, consumer, user_id, provider=provider)
    if not grants:
        raise not_found(GrantKey(provider, user_id))
    return _health(grants, services.clock.now())


@router.get(
    "/users/{user_id}/health-check", summary="How all connections of a user are", responses=responses()
)
async def get_user_health(user_id: UserPath, services: Use, consumer: Reader) -> UserHealth:
    """Every account of the user at every provider that the key may see. Asks the providers nothing."""
    return _health(await grants_seen(services, consumer, user_id), services.clock.now())


@router.post(
    "/oauth/{provider}/refresh-tokens",
    summary="Renew a user's connections to a provider",
    responses=responses("unknown_provider", "grant_not_found"),
)
async def refresh_tokens(
    provider: ProviderPath,
    body: RefreshTokensBody,
    request: Request,
    services: Use,
    consumer: Annotated[Consumer, Depends(consumer_with(Scope.TOKENS_REFRESH))],
) -> RefreshTokensAnswer:
    """Refreshes those that have expired or are about to; the others are left as they are."""
    services.clients.get(provider)
    grants = await grants_seen(services, consumer, body.user_id, provider=provider)
    if not grants:
        raise not_found(GrantKey(provider, body.user_id))
    items = await asyncio.gather(*(_refresh(request, services, grant) for grant in grants))
    return RefreshTokensAnswer(
        items=items,
        refreshed=sum(item.outcome == "refreshed" for item in items),
        failed=sum(item.outcome in ("failed", "reconnect_required") for item in items),
    )


async def _refresh(request: Request, services: Services, grant: Grant) -> Refreshed:
    now = services.clock.now()
    kept = Refreshed(
        grant_id=grant.id, account=grant.key.account, outcome="fresh", expires_at=grant.expires_at
    )
    if grant.status is not Status.ACTIVE:
        dead = grant.dead(grant.reconnect_reason or "invalid_grant")
        problem = problem_of(request, dead)
        return kept.model_copy(update={"outcome": "reconnect_required", "problem": problem})
    if grant.lasts(now, DEFAULT_MIN_TTL) and not grant.is_due(now):
        return kept
    if not grant.refreshable and grant.is_valid(now):
        return kept.model_copy(update={"outcome": "skipped"})
    try:
        token = await services.refresher.fresh(grant.key, Need(newer_than=grant.generation, or_present=False))
    except BrokerError as error:
        outcome = "reconnect_required" if isinstance(error, ReconnectRequired) else "failed"
        return kept.model_copy(update={"outcome": outcome, "problem": problem_of(request, error)})
    return kept.model_copy(update={"outcome": "refreshed", "expires_at": token.grant.expires_at})


def _health(grants: Sequence[Grant], now: datetime) -> UserHealth:
    items = []
    for grant in grants:
        remaining = grant.remaining(now)
        items.append(
            ConnectionHealth(
                grant=describe(grant, now),
                health=grant.health(now),
                expires_in=None if remaining is None else max(0, int(remaining.total_seconds())),
                message=sentence(grant, now),
            )
        )
    return UserHealth(items=items, overall=overall(grants, now))
