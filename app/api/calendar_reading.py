"""`/calendar/...`, read: calendars, events between two times, runs. Asks no provider."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.api.answers import CursorQuery, LimitQuery, Page, page, read_cursor
from app.api.calendar import CalendarUser, SyncedCalendar, calendar_grants
from app.api.calendar_events import EventAnswer, event_answer
from app.api.deps import Moment, OpaqueName
from app.api.problems import responses
from app.api.services import Services, Use
from app.calendars.occurrence import Occurrence
from app.calendars.outcome import SyncStatus, SyncTrigger
from app.calendars.shown import shown
from app.calendars.stored import Run, StoredCalendar
from app.calendars.trouble import ErrorType
from app.calendars.writes import PRIMARY
from app.errors import NotFound, ValidationFailed
from app.grants.grant import Grant

router = APIRouter(tags=["Calendar"])

UserQuery = Annotated[OpaqueName, Query(description="Your name for the user.")]
ProviderQuery = Annotated[
    str | None, Query(max_length=64, description="Left out: every provider that has calendars.")
]
AccountQuery = Annotated[OpaqueName | None, Query(description="Left out: every account of the user there.")]


class CalendarAnswer(BaseModel):
    """A calendar as it was last listed, and how its syncs went."""

    id: str = Field(description="The provider's.")
    name: str
    provider: str
    account: str
    time_zone: str | None
    access_role: str = Field(description="As the provider calls it.")
    primary: bool
    last_synced_at: datetime | None = Field(description="When it was last synced well; null: never.")
    last_full_sync_at: datetime | None
    next_sync_at: datetime | None = Field(description="When it is synced by itself; null: it is not.")
    failures: int = Field(description="Syncs that failed since then.")
    error_type: ErrorType | None = Field(description="Of the last sync, if it failed.")


class OccurrenceAnswer(EventAnswer):
    """An event at one of its times."""

    partly_read: bool = Field(
        description="Whether its recurrence says more than could be understood, so that there may be other times."
    )


class CalendarRunAnswer(BaseModel):
    """What a sync of one account's calendars came to."""

    run_id: UUID
    provider: str
    account: str
    trigger: SyncTrigger
    status: SyncStatus
    error_type: ErrorType | None
    message: str
    calendars: list[SyncedCalendar]
    started_at: datetime
    ended_at: datetime


@router.get("/calendar/calendars", summary="List a user's calendars", responses=responses("unknown_provider"))
async def list_calendars(
    user_id: UserQuery,
    services: Use,
    consumer: CalendarUser,
    provider: ProviderQuery = None,
    account: AccountQuery = None,
) -> Page[CalendarAnswer]:
    """All of them on one page, as they were last listed by the provider, the primary one first."""
    grants = await calendar_grants(services, consumer, user_id, provider, account)
    by_id = {grant.id: grant for grant in grants}
    found = await services.calendar_reader.calendars(list(by_id))
    items = [_calendar(each, by_id[each.grant_id]) for each in found]
    return Page[CalendarAnswer](items=items, next_cursor=None)


@router.get(
    "/calendar/events",
    summary="List a user's events",
    responses=responses("unknown_provider", "not_found"),
)
async def list_events(
    user_id: UserQuery,
    since: Annotated[Moment, Query(alias="from", description="Events that end after that.")],
    until: Annotated[
        Moment, Query(alias="to", description="Events that begin before that; 366 days later at most.")
    ],
    services: Use,
    consumer: CalendarUser,
    provider: ProviderQuery = None,
    account: AccountQuery = None,
    calendar_id: Annotated[
        str | None,
        Query(max_length=1024, description="The provider's id, or `primary`; left out: all of them."),
    ] = None,
    limit: LimitQuery = 50,
    cursor: Annotated[
        str | None, Query(max_length=4096, description="The `next_cursor` of the page before.")
    ] = None,
) -> Page[OccurrenceAnswer]:
    """As they were last synced, by their beginning: recurring events as often as they come, cancelled ones not at all."""
    grants = await calendar_grants(services, consumer, user_id, provider, account)
    by_id = {grant.id: grant for grant in grants}
    known = await services.calendar_reader.calendars(list(by_id))
    chosen = {each.id: each for each in known if _is_meant(each, calendar_id)}
    if calendar_id is not None and not chosen:
        raise NotFound("This calendar is not known. Calendars are known once they have been synced.")
    found = await services.calendar_reader.events(list(chosen), since, until)
    after = _read_order(cursor)
    rest = [each for each in found if after is None or _order(each) > after]
    items = [_occurrence(services, each, chosen[each.calendar_id], by_id) for each in rest[:limit]]
    following = _cursor(rest[limit - 1]) if len(rest) > limit else None
    return Page[OccurrenceAnswer](items=items, next_cursor=following)


@router.get("/calendar/runs", summary="List a user's syncs", responses=responses("unknown_provider"))
async def list_calendar_runs(
    user_id: UserQuery,
    services: Use,
    consumer: CalendarUser,
    provider: ProviderQuery = None,
    account: AccountQuery = None,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> Page[CalendarRunAnswer]:
    """What syncs of the last 30 days came to, the latest first. Those by the clock that changed nothing are not kept."""
    grants = await calendar_grants(services, consumer, user_id, provider, account)
    by_id = {grant.id: grant for grant in grants}
    before = read_cursor(cursor)
    runs = await services.calendar_reader.runs(list(by_id), before=before, limit=limit + 1)
    return page(runs, limit, id_of=lambda run: run.id, as_item=lambda run: _run(run, by_id[run.grant_id]))


def _is_meant(calendar: StoredCalendar, calendar_id: str | None) -> bool:
    return calendar_id in {None, calendar.external_id} or (calendar.is_primary and calendar_id == PRIMARY)


def _calendar(calendar: StoredCalendar, grant: Grant) -> CalendarAnswer:
    return CalendarAnswer(
        id=calendar.external_id,
        name=calendar.name,
        provider=grant.key.provider,
        account=grant.key.account,
        time_zone=calendar.zone,
        access_role=calendar.access_role,
        primary=calendar.is_primary,
        last_synced_at=calendar.last_ok_at,
        last_full_sync_at=calendar.last_full_at,
        next_sync_at=calendar.next_attempt_at,
        failures=calendar.failures,
        error_type=None if calendar.last_error is None else calendar.last_error["error_type"],
    )


def _occurrence(
    services: Services, found: Occurrence, calendar: StoredCalendar, grants: dict[UUID, Grant]
) -> OccurrenceAnswer:
    key = grants[calendar.grant_id].key
    api = services.clients.get(key.provider).calendar_api
    assert api is not None  # grants of other providers are not chosen
    event = event_answer(shown(found.as_event(), api), calendar_id=calendar.external_id, key=key)
    return OccurrenceAnswer(**event.model_dump(), partly_read=bool(found.instance.unread))


def _run(run: Run, grant: Grant) -> CalendarRunAnswer:
    whose = {"provider": grant.key.provider, "account": grant.key.account}
    return CalendarRunAnswer(
        run_id=run.id,
        trigger=SyncTrigger(run.trigger),
        status=SyncStatus(run.status),
        error_type=None if run.error_type is None else ErrorType(run.error_type),
        message=run.message,
        calendars=[SyncedCalendar(**whose, **each) for each in run.calendars],
        started_at=run.started_at,
        ended_at=run.ended_at,
        **whose,
    )


_Order = tuple[str, str, str]


def _order(found: Occurrence) -> _Order:
    """As they are listed."""
    begins_at, event_id, calendar_id = found.order
    return begins_at.isoformat(), event_id, str(calendar_id)


def _cursor(last: Occurrence) -> str:
    return base64.urlsafe_b64encode(json.dumps(_order(last)).encode()).decode().rstrip("=")


def _read_order(cursor: str | None) -> _Order | None:
    """Where the page before ended. Raises ValidationFailed for what is no cursor."""
    if cursor is None:
        return None
    try:
        begins_at, event_id, calendar_id = json.loads(base64.urlsafe_b64decode(cursor + "=="))
        datetime.fromisoformat(begins_at)
        return str(begins_at), str(event_id), str(calendar_id)
    except (binascii.Error, ValueError, TypeError, RecursionError):
        sentence = "must be the `next_cursor` of a page before, unchanged"
        raise ValidationFailed(f"The cursor {sentence}.", fields={"query.cursor": sentence}) from None
