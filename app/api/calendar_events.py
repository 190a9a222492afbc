"""`/calendar/events`: an event written through to the provider of its calendar."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import BaseModel, BeforeValidator, Field

from app.api.calendar import CalendarUser, calendar_grants, no_calendars
from app.api.deps import Body, Moment, OpaqueName, ProviderId, percent_decode
from app.api.problems import responses
from app.api.services import Services, Use
from app.calendars.draft import Draft, Time, draft_of
from app.calendars.shown import ShownEvent, shown
from app.calendars.writes import PRIMARY
from app.calendars.writing import Target, Written
from app.consumers.consumer import Consumer
from app.errors import ValidationFailed
from app.grants.grant import Grant, GrantKey
from app.telemetry import note

router = APIRouter(tags=["Calendar"])

_ETAG = re.compile(r'(W/)?"[\x21\x23-\x7e]*"')  # RFC 9110 section 8.8.3
_TIMES = {"start", "end"}
_PROBLEMS = (
    *("grant_not_found", "unknown_provider", "not_found", "reconnect_required", "insufficient_scope", "conflict"),
    *("provider_rejected_client", "provider_error", "provider_unavailable"),
)  # fmt: skip

EventPath = Annotated[
    ProviderId,
    BeforeValidator(percent_decode),
    Path(description="The provider's id of the event, percent-encoded.", examples=["7kukuqrfedlm2f9t"]),
]
IfMatch = Annotated[
    str | None,
    Header(
        description="The `etag` that the event must still have. Left out: the last who writes wins.",
        max_length=255,
        pattern=r'^(\*|(W/)?"[\x21\x23-\x7e]*")$',
        examples=['"3181161784712000"'],
    ),
]


class EventTime(Body):
    """A `date`, of an all-day event, or a `date_time`."""

    date: str | None = Field(default=None, pattern=r"^\d{4}-\d\d-\d\d$")
    date_time: Moment | None = None
    time_zone: str | None = Field(
        default=None,
        max_length=64,
        description="The zone of the IANA's data base that it is meant in. With `date_time` only.",
    )


class _Fields(Body):
    """What an event is, besides its times."""

    user_id: OpaqueName = Field(description="Your name for the user.")
    provider: str | None = Field(
        default=None, max_length=64, description="Left out: the one provider of the user that has calendars."
    )
    account: OpaqueName | None = Field(
        default=None, description="Left out: the one account of the user there."
    )
    calendar_id: ProviderId = Field(default=PRIMARY, description="The provider's id, or `primary`.")
    title: str | None = Field(default=None, max_length=1024)
    description: str | None = Field(default=None, max_length=8192)
    location: str | None = Field(default=None, max_length=1024)
    recurrence: list[Annotated[str, Field(max_length=1024)]] | None = Field(
        default=None,
        max_length=50,
        description="Lines of RFC 5545: RRULE, RDATE, EXDATE. Outlook has one RRULE at most.",
    )
    attendees: list[Annotated[str, Field(max_length=254)]] | None = Field(
        default=None, max_length=200, description="E-mail addresses."
    )
    status: Literal["confirmed", "tentative"] | None = None

    def named(self) -> dict[str, Any]:
        """What is said of the event itself, of that what was left out is not there."""
        whose = {"user_id", "provider", "account", "calendar_id", "id"}
        fields = {name: getattr(self, name) for name in self.model_fields_set - whose}
        for name in _TIMES & fields.keys():
            given = fields[name]
            fields[name] = given and Time(given.date, given.date_time, given.time_zone)
        return fields


class EventBody(_Fields):
    """A new event."""

    id: OpaqueName | None = Field(
        default=None,
        description="Your own name for the event: with it the same is created once, however often you ask.",
    )
    start: EventTime
    end: EventTime = Field(
        description="Of the same kind as `start`. Of an all-day event: the day after its last."
    )

    def draft(self) -> Draft:
        given = {name: value for name, value in self.named().items() if value is not None}
        return draft_of(given, is_new=True)


class EventPatch(_Fields):
    """What is to be changed of an event. Null takes it away."""

    start: EventTime | None = None
    end: EventTime | None = None

    def draft(self) -> Draft:
        return draft_of(self.named(), is_new=False)


class EventTimeAnswer(BaseModel):
    """A `date`, of an all-day event, or a `date_time`."""

    date: str | None
    date_time: datetime | None
    time_zone: str | None = Field(
        description="The zone that it was meant in, of the IANA's data base; null: unknown, or a date."
    )


class EventPerson(BaseModel):
    email: str | None
    name: str | None
    reply: Literal["needs_action", "accepted", "declined", "tentative"] | None = Field(
        description="Null: of the organizer."
    )


class EventAnswer(BaseModel):
    """An event as its provider has it."""

    id: str = Field(description="The provider's.")
    calendar_id: str = Field(description="The provider's; `primary` before the calendar was first synced.")
    provider: str
    account: str
    title: str | None
    description: str | None = Field(description="May be HTML.")
    location: str | None
    status: str = Field(description="`confirmed`, `tentative` or `cancelled`.")
    start: EventTimeAnswer | None
    end: EventTimeAnswer | None = Field(description="Of an all-day event: the day after its last.")
    all_day: bool
    recurring_event_id: str | None = Field(description="Of an instance of a series: the series.")
    original_start: str | None = Field(
        description="Of an instance: when it would begin by the rule; a date, or a time in UTC."
    )
    recurrence: list[str] = Field(description="Lines of RFC 5545.")
    etag: str | None = Field(description="For `If-Match`.")
    updated_at: datetime | None
    organizer: EventPerson | None
    attendees: list[EventPerson]
    html_link: str | None = Field(description="Where people see it.")


@router.post("/calendar/events", status_code=201, summary="Create an event", responses=responses(*_PROBLEMS))
async def create_event(
    body: EventBody, services: Use, response: Response, consumer: CalendarUser
) -> EventAnswer:
    """Asks the provider at once. With an `id` that was used before in this calendar it answers the event that is there, whatever
    has become of it; `conflict`, if it was deleted. Without one each call creates another event."""
    draft = body.draft()
    target = await _target(services, consumer, body, "body")
    written = await services.event_writer.create(target, draft, name=body.id)
    return _answered(services, target, written, response)


@router.patch("/calendar/events/{event_id}", summary="Change an event", responses=responses(*_PROBLEMS))
async def change_event(
    event_id: EventPath,
    body: EventPatch,
    services: Use,
    response: Response,
    consumer: CalendarUser,
    if_match: IfMatch = None,
) -> EventAnswer:
    """Asks the provider at once. An instance of a series is changed by its own id, all of them by that of the series."""
    draft = body.draft()
    target = await _target(services, consumer, body, "body")
    written = await services.event_writer.change(target, event_id, draft, if_match=if_match)
    return _answered(services, target, written, response)


class _Whose(BaseModel):
    user_id: str
    provider: str | None
    account: str | None
    calendar_id: str


@router.delete(
    "/calendar/events/{event_id}",
    status_code=204,
    response_class=Response,
    summary="Delete an event",
    responses=responses(*_PROBLEMS),
)
async def delete_event(
    event_id: EventPath,
    user_id: Annotated[OpaqueName, Query(description="Your name for the user.")],
    services: Use,
    consumer: CalendarUser,
    provider: Annotated[
        str | None,
        Query(max_length=64, description="Left out: the one provider of the user that has calendars."),
    ] = None,
    account: Annotated[
        OpaqueName | None, Query(description="Left out: the one account of the user there.")
    ] = None,
    calendar_id: Annotated[ProviderId, Query(description="The provider's id, or `primary`.")] = PRIMARY,
    if_match: IfMatch = None,
) -> None:
    """Asks the provider at once. One that is gone already is deleted."""
    whose = _Whose(user_id=user_id, provider=provider, account=account, calendar_id=calendar_id)
    target = await _target(services, consumer, whose, "query")
    await services.event_writer.delete(target, event_id, if_match=if_match)


def event_answer(event: ShownEvent, *, calendar_id: str, key: GrantKey) -> EventAnswer:
    fields: Mapping[str, Any] = asdict(event)
    return EventAnswer(calendar_id=calendar_id, provider=key.provider, account=key.account, **fields)


async def _target(services: Services, consumer: Consumer, whose: _Fields | _Whose, place: str) -> Target:
    """The one account that is meant. Raises GrantNotFound, UnknownProvider and ValidationFailed."""
    grants = await calendar_grants(services, consumer, whose.user_id, whose.provider, whose.account)
    if not grants:
        raise no_calendars(whose.user_id, whose.provider)
    if len(grants) > 1:
        raise _several(grants, place)
    note(provider=grants[0].key.provider, grant_id=str(grants[0].id))
    return Target(grants[0], whose.calendar_id, consumer.name)


def _several(grants: Sequence[Grant], place: str) -> ValidationFailed:
    providers = sorted({grant.key.provider for grant in grants})
    field, choices = "provider", providers
    if len(providers) == 1:
        field, choices = "account", sorted(grant.key.account for grant in grants)
    return ValidationFailed(
        f"The user has several calendar accounts; say by {field} which one is meant.",
        fields={f"{place}.{field}": f"must be one of: {', '.join(choices)}"},
    )


def _answered(services: Services, target: Target, written: Written, response: Response) -> EventAnswer:
    key = target.grant.key
    api = services.clients.get(key.provider).calendar_api
    assert api is not None
    event = shown(written.event, api)
    if event.etag is not None and _ETAG.fullmatch(event.etag):
        response.headers["ETag"] = event.etag
    return event_answer(event, calendar_id=written.calendar_id, key=key)
