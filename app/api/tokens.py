"""`/tokens`: what backend services call instead of keeping tokens."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field

from app.api.access import as_seen, consumer_with
from app.api.deps import Body, Key, OpaqueName, WaitQuery, with_account
from app.api.problems import responses
from app.api.services import Services, Use
from app.audit.event import Disclosure
from app.consumers.consumer import Consumer, Scope
from app.grants.grant import DEFAULT_ACCOUNT
from app.grants.token import Degraded, Need, Token
from app.grants.validate import CheckedBy
from app.telemetry import note

router = APIRouter(tags=["Tokens"])

_FAILURES = (
    "unknown_provider",
    "grant_not_found",
    "reconnect_required",
    "provider_rejected_client",
    "provider_error",
    "provider_unavailable",
    "refresh_timeout",
)


class TokenAnswer(BaseModel):
    """A user's access token. It is answered with `Cache-Control: no-store`: ask again instead of keeping it."""

    access_token: str
    token_type: str = Field(examples=["Bearer"])
    expires_at: datetime | None = Field(description="Null: it does not expire.")
    expires_in: int | None = Field(description="Seconds from now.")
    scope: str | None = Field(description="What was granted, space-separated; null where it is not known.")
    provider: str
    user_id: str
    account: str
    grant_id: UUID
    generation: int = Field(
        description="One more with each new token; tells a refused one from its successor."
    )
    refreshed: bool = Field(description="Whether this very request waited for a refresh.")
    degraded: Degraded | None = Field(description="Why this token is less than what was asked for, if it is.")


class RefreshBody(Body):
    """What a resource server refused; all of it may be left out."""

    account: OpaqueName = Field(
        default=DEFAULT_ACCOUNT, description="Tells several accounts of one user at one provider apart."
    )
    generation: int | None = Field(
        default=None,
        ge=1,
        strict=True,
        description="Of the token that a resource server refused: refreshed only if it is still the present one.",
    )
    reason: str | None = Field(default=None, max_length=200, description="For the logs.")


@router.get(
    "/tokens/{provider}/{user_id}",
    summary="Fetch a fresh access token",
    responses=responses(*_FAILURES, "insufficient_scope"),
)
async def get_token(
    key: Key,
    services: Use,
    response: Response,
    consumer: Annotated[Consumer, Depends(consumer_with(Scope.TOKENS_READ))],
    min_ttl: Annotated[
        int, Query(ge=0, le=86400, description="Seconds the token must still be good for.")
    ] = 60,
    scope: Annotated[
        str, Query(max_length=4096, description="Space-separated scopes without which no token is of use.")
    ] = "",
    wait: WaitQuery = 30,
) -> TokenAnswer:
    """A token that is good for `min_ttl` seconds; an expired one is refreshed first.

    If a refresh fails while the present token is still valid, that one is answered with `degraded` set.
    """
    key = as_seen(services, consumer, key)
    need = Need(min_ttl=timedelta(seconds=min_ttl))
    token = await services.refresher.fresh(key, need, scope=scope, wait=timedelta(seconds=wait))
    note(grant_id=str(token.grant.id), generation=token.grant.generation, degraded=token.degraded)
    await services.disclosures.given([disclosure_of(consumer, token)])
    return answer_of(token, services, response)


@router.post(
    "/tokens/{provider}/{user_id}/refresh",
    summary="Refresh now",
    responses=responses(*_FAILURES),
)
async def refresh_token(
    key: Key,
    services: Use,
    response: Response,
    consumer: Annotated[Consumer, Depends(consumer_with(Scope.TOKENS_REFRESH))],
    body: RefreshBody | None = None,
    wait: WaitQuery = 30,
) -> TokenAnswer:
    """After a resource server refused a token: name its `generation`, and it is refreshed unless a newer one is
    there already. Without it the token is always refreshed, once every 10 seconds at most.
    """
    wanted = body or RefreshBody()
    key = with_account(key, wanted.account)
    note(reason=wanted.reason)
    key = as_seen(services, consumer, key)
    token = await services.refresher.force(key, generation=wanted.generation, wait=timedelta(seconds=wait))
    note(grant_id=str(token.grant.id), generation=token.grant.generation, degraded=token.degraded)
    await services.disclosures.given([disclosure_of(consumer, token)])
    return answer_of(token, services, response)


class ValidationAnswer(BaseModel):
    """What the provider says of the token."""

    valid: bool | None = Field(description="Null: the provider was asked and did not tell.")
    checked_by: CheckedBy = Field(description="`expiry`: the provider has no way to be asked.")
    checked_at: datetime


@router.post(
    "/tokens/{provider}/{user_id}/validate",
    summary="Ask the provider whether the token works",
    responses=responses("unknown_provider", "grant_not_found"),
)
async def validate_token(
    key: Key, services: Use, consumer: Annotated[Consumer, Depends(consumer_with(Scope.TOKENS_READ))]
) -> ValidationAnswer:
    """Introspection (RFC 7662) where the provider has it, else userinfo, else the stored expiry. Refreshes nothing."""
    key = as_seen(services, consumer, key)
    found = await services.validator.validate(key)
    return ValidationAnswer(valid=found.valid, checked_by=found.checked_by, checked_at=found.checked_at)


def disclosure_of(consumer: Consumer, token: Token) -> Disclosure:
    """What goes on record when it is answered."""
    grant = token.grant
    key = grant.key
    return Disclosure(consumer.name, key.provider, key.user_id, grant.id, grant.generation, consumer.key_id)


def answer_of(token: Token, services: Services, response: Response) -> TokenAnswer:
    """The token as callers get it, once that is on record."""
    response.headers["Cache-Control"] = "no-store"
    services.uses.note(token.grant.id)
    return token_answer(token, services.clock.now())


def token_answer(token: Token, now: datetime) -> TokenAnswer:
    """The token as callers get it."""
    grant = token.grant
    remaining = grant.remaining(now)
    return TokenAnswer(
        access_token=token.access_token,
        token_type=grant.token_type,
        expires_at=grant.expires_at,
        expires_in=None if remaining is None else max(0, int(remaining.total_seconds())),
        scope=grant.scope,
        provider=grant.key.provider,
        user_id=grant.key.user_id,
        account=grant.key.account,
        grant_id=grant.id,
        generation=grant.generation,
        refreshed=token.refreshed,
        degraded=token.degraded,
    )
