"""`/grants`, read: one grant, a list, a history. Never a token."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field

from app.api.access import consumer_with
from app.api.answers import CursorQuery, GrantAnswer, LimitQuery, Page, describe, page, read_cursor
from app.api.deps import Moment, OpaqueName
from app.api.problems import responses
from app.api.services import Services, Use
from app.consumers.consumer import Consumer, Scope
from app.grants.grant import Grant
from app.grants.reading import no_such_grant
from app.grants.selection import Attempt, Selection
from app.telemetry import note, security_event_later

router = APIRouter(tags=["Grants"])

Reader = Annotated[Consumer, Depends(consumer_with(Scope.GRANTS_READ))]
GrantPath = Annotated[UUID, Path(description="The `id` of a grant.")]


class AttemptAnswer(BaseModel):
    """How one refresh attempt ended."""

    id: UUID
    at: datetime
    replica: str = Field(description="Which process ran it.")
    trigger: str = Field(
        description="Who asked: `request`, `ahead` (behind an answer), `scheduler`, `forced` or `probe` (a dead grant, once more).",
        examples=["request"],
    )
    outcome: str = Field(
        description="`refreshed`, `failed`, `unknown` (the refresh token may be spent) or `dead`.",
        examples=["refreshed"],
    )
    category: str | None = Field(description="The kind of trouble, if it failed.")
    provider_code: str | None = Field(description="The provider's own error code, if it gave one.")
    milliseconds: int
    generation: int = Field(description="The one it led to, or left in place.")


@router.get("/grants", summary="List grants", responses=responses())
async def list_grants(
    services: Use,
    consumer: Reader,
    provider: Annotated[OpaqueName | None, Query(description="Those at this provider.")] = None,
    user_id: Annotated[OpaqueName | None, Query(description="Those of this user.")] = None,
    status: Annotated[
        Literal["active", "reconnect_required"] | None, Query(description="Those in this state.")
    ] = None,
    expires_before: Annotated[Moment | None, Query(description="Those whose token ends before.")] = None,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> Page[GrantAnswer]:
    """The grants that the key may see, the oldest first."""
    wanted = Selection(
        provider=provider,
        user_id=user_id,
        status=status,
        expires_before=expires_before,
        visible_providers=consumer.providers,
        visible_users=consumer.users,
    )
    grants = await services.reader.listed(wanted, after=read_cursor(cursor), limit=limit + 1)
    now = services.clock.now()
    return page(grants, limit, id_of=lambda grant: grant.id, as_item=lambda grant: describe(grant, now))


@router.get("/grants/{grant_id}", summary="Look at a grant", responses=responses("grant_not_found"))
async def get_grant(grant_id: GrantPath, services: Use, consumer: Reader) -> GrantAnswer:
    """One grant by its id, without its tokens."""
    return describe(await _visible(grant_id, services, consumer), services.clock.now())


@router.get(
    "/grants/{grant_id}/history",
    summary="Look at a grant's refreshes",
    responses=responses("grant_not_found"),
)
async def get_history(
    grant_id: GrantPath, services: Use, consumer: Reader, limit: LimitQuery = 50, cursor: CursorQuery = None
) -> Page[AttemptAnswer]:
    """Every refresh attempt, the latest first."""
    grant = await _visible(grant_id, services, consumer)
    attempts = await services.reader.history(grant, before=read_cursor(cursor), limit=limit + 1)
    return page(attempts, limit, id_of=lambda attempt: attempt.id, as_item=_as_answer)


async def _visible(grant_id: UUID, services: Services, consumer: Consumer) -> Grant:
    """Raises GrantNotFound alike for a grant that is absent and for one that the consumer may not see."""
    grant = await services.reader.get(grant_id)
    if not consumer.may_see(grant.key.provider, grant.key.user_id):
        security_event_later("foreign_grant", grant_id=str(grant_id))
        raise no_such_grant()
    note(provider=grant.key.provider, grant_id=str(grant_id))
    return grant


def _as_answer(attempt: Attempt) -> AttemptAnswer:
    return AttemptAnswer.model_validate(attempt, from_attributes=True)
