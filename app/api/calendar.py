"""`/calendar/sync`: a user's calendars brought up to date, when a service asks for it or a page is opened."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from app.api.access import consumer_with, grants_seen
from app.api.deps import Body, OpaqueName
from app.api.problems import Action, reconnect, responses
from app.api.services import Services, Use
from app.calendars.outcome import CalendarStatus, Mode, SyncOutcome, SyncStatus, SyncTrigger, together
from app.calendars.refusal import refusal
from app.calendars.sync import Wanted
from app.calendars.trouble import USERS_TO_MEND, ErrorType
from app.consumers.consumer import Consumer, Scope
from app.errors import GrantNotFound, ValidationFailed
from app.grants.grant import Grant
from app.telemetry import note

router = APIRouter(tags=["Calendar"])

CalendarUser = Annotated[Consumer, Depends(consumer_with(Scope.CALENDAR))]


class CalendarError(BaseModel):
    """Why a calendar was not synced."""

    error_type: ErrorType
    message: str = Field(description="A sentence for the user.")
    provider_code: str | None = Field(description="The provider's own word for it.")


class SyncedCalendar(BaseModel):
    """What became of one calendar."""

    id: str = Field(description="The provider's.")
    name: str
    provider: str
    account: str
    status: CalendarStatus = Field(description="`running`: it is being synced elsewhere at this moment.")
    mode: Mode = Field(description="`full`: everything was fetched again.")
    added: int
    updated: int
    deleted: int
    rebuilt: bool = Field(description="Whether the provider wanted everything to be fetched again.")
    error: CalendarError | None = None


class SyncAnswer(BaseModel):
    """What a sync came to."""

    status: SyncStatus
    message: str = Field(description="A sentence for the user.")
    error_type: ErrorType | None = Field(description="Why not everything was synced.")
    calendars: list[SyncedCalendar]
    run_id: UUID | None = Field(description="Null where there was nothing to sync.")
    next: datetime | None = Field(description="When it is synced again by itself, where that is known.")
    action: Action | None = Field(default=None, description="What the user has to do, where only that helps.")


class SyncBody(Body):
    """Whose calendars, and which of them."""

    user_id: OpaqueName = Field(description="Your name for the user.")
    provider: str | None = Field(
        default=None, max_length=64, description="Left out: every provider that has calendars."
    )
    account: OpaqueName | None = Field(default=None, description="Left out: every account of the user there.")
    calendar_ids: list[Annotated[str, Field(min_length=1, max_length=1024)]] = Field(
        default=[], max_length=100, description="The provider's ids, or `primary`; left out: all calendars."
    )
    full: bool = Field(default=False, description="Fetch everything again, whatever is there.")


class AutoSyncBody(Body):
    """Whose calendars, and how current they have to be."""

    user_id: OpaqueName = Field(description="Your name for the user.")
    provider: str | None = Field(
        default=None, max_length=64, description="Left out: every provider that has calendars."
    )
    account: OpaqueName | None = Field(default=None, description="Left out: every account of the user there.")
    min_interval: int = Field(
        default=300, ge=0, le=86400, description="Seconds: who was synced well since is not synced again."
    )


@router.post(
    "/calendar/sync",
    summary="Sync a user's calendars now",
    responses=responses(
        *("grant_not_found", "unknown_provider", "not_found", "reconnect_required", "insufficient_scope"),
        *("provider_rejected_client", "provider_error", "provider_unavailable"),
    ),
)
async def sync_calendars(body: SyncBody, services: Use, consumer: CalendarUser) -> SyncAnswer:
    """The token is renewed first where it has to be. One calendar that fails stops no other (`partial`); where nothing at all
    could be synced the problem says why, and holds this body as `sync`."""
    grants = await calendar_grants(services, consumer, body.user_id, body.provider, body.account)
    if not grants:
        raise no_calendars(body.user_id, body.provider)
    if body.calendar_ids and len(grants) > 1:
        raise ValidationFailed(
            "calendar_ids are of one account, but the user has several.",
            fields={"body.calendar_ids": "name the provider and the account that they are of"},
            provider=body.provider,
        )
    wanted = Wanted(SyncTrigger.REQUEST, tuple(body.calendar_ids), full=body.full)
    outcomes = await asyncio.gather(*(services.calendars.sync(grant, wanted) for grant in grants))
    answer = _answer(services, grants, outcomes)
    if answer.status in {SyncStatus.SUCCESS, SyncStatus.PARTIAL}:
        return answer
    failed = next(index for index, each in enumerate(outcomes) if each.error_type is not None)
    raise _refused(services, grants[failed], outcomes[failed], answer)


@router.post(
    "/calendar/sync/auto",
    summary="Keep a user's calendars current",
    responses=responses("unknown_provider"),
)
async def auto_sync_calendars(body: AutoSyncBody, services: Use, consumer: CalendarUser) -> SyncAnswer:
    """For pages as they open: always 200, whatever tokens and providers do. From then on the calendars are synced by the clock as
    well; at once only where the last good sync is older than `min_interval`, else this answers what the last one came to."""
    grants = await calendar_grants(services, consumer, body.user_id, body.provider, body.account)
    if not grants:
        return SyncAnswer(
            status=SyncStatus.TOKEN_UNAVAILABLE,
            message="No calendar is connected yet. Please connect one.",
            error_type=ErrorType.AUTHENTICATION_EXPIRED,
            calendars=[],
            run_id=None,
            next=None,
        )
    interval = timedelta(seconds=body.min_interval)
    outcomes = await asyncio.gather(
        *(services.calendars.auto(grant, min_interval=interval) for grant in grants)
    )
    return _answer(services, grants, outcomes)


async def calendar_grants(
    services: Services, consumer: Consumer, user_id: str, provider: str | None, account: str | None
) -> Sequence[Grant]:
    """The user's grants that have calendars, of those that the consumer may see. Raises UnknownProvider and ValidationFailed."""
    if provider is not None:
        note(provider=provider)
        if services.calendar_apis.of(provider) is None:
            known = ", ".join(services.calendar_apis.providers) or "none"
            raise ValidationFailed(
                f"{provider} has no calendars that this service can read.",
                fields={"provider": f"must be one that has calendars: {known} (got {provider!r})"},
                provider=provider,
            )
    providers = {provider} if provider is not None else set(services.calendar_apis.providers)
    grants = await grants_seen(services, consumer, user_id, provider=provider)
    return [
        grant for grant in grants if grant.key.provider in providers and account in {None, grant.key.account}
    ]


def no_calendars(user_id: str, provider: str | None) -> GrantNotFound:
    """The one error where nothing is connected, and where the consumer may not see it."""
    return GrantNotFound(
        "No calendar of this user is connected. Connect one first.", provider=provider, user_id=user_id
    )


def _answer(services: Services, grants: Sequence[Grant], outcomes: Sequence[SyncOutcome]) -> SyncAnswer:
    whole = together(outcomes)
    return SyncAnswer(
        status=whole.status,
        message=whole.message,
        error_type=whole.error_type,
        calendars=[
            SyncedCalendar(provider=grant.key.provider, account=grant.key.account, **calendar)
            for grant, outcome in zip(grants, outcomes, strict=True)
            for calendar in outcome.calendars
        ],
        run_id=whole.run_id,
        next=whole.next_at,
        action=_action(services, grants, outcomes),
    )


def _action(services: Services, grants: Sequence[Grant], outcomes: Sequence[SyncOutcome]) -> Action | None:
    """Of the first grant that only the user can mend."""
    for grant, outcome in zip(grants, outcomes, strict=True):
        if outcome.error_type in USERS_TO_MEND:
            return reconnect(services, grant.key)
    return None


def _refused(services: Services, grant: Grant, outcome: SyncOutcome, answer: SyncAnswer) -> Exception:
    assert outcome.error_type is not None
    retry_after = outcome.retry_after
    if retry_after is None and outcome.next_at is not None:
        retry_after = max(1, math.ceil((outcome.next_at - services.clock.now()).total_seconds()))
    error = refusal(outcome.error_type, answer.message, grant, retry_after=retry_after)
    error.extension = {**error.extension, "sync": answer.model_dump(mode="json")}
    return error
