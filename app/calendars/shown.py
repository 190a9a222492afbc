"""`ShownEvent`: an event as this service shows it, whoever keeps it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.calendars.answers import text_of
from app.calendars.event import Event
from app.oauth.parts import CalendarApi

_REPLIES = {
    "accepted": "accepted",
    "organizer": "accepted",
    "declined": "declined",
    "tentative": "tentative",
    "tentativelyAccepted": "tentative",
}


@dataclass(frozen=True, slots=True)
class ShownTime:
    """A date, or an instant in UTC and the zone that it was meant in."""

    date: str | None
    date_time: datetime | None
    time_zone: str | None


@dataclass(frozen=True, slots=True)
class Person:
    """`reply`: needs_action, accepted, declined, tentative; None for who is not asked."""

    email: str | None
    name: str | None
    reply: str | None = None


@dataclass(frozen=True, slots=True)
class ShownEvent:
    """`id`: the provider's. `start` and `end` are None in cancelled instances only; the end of an all-day event is exclusive."""

    id: str
    title: str | None
    description: str | None
    location: str | None
    status: str
    start: ShownTime | None
    end: ShownTime | None
    all_day: bool
    recurring_event_id: str | None
    original_start: str | None
    recurrence: tuple[str, ...]
    etag: str | None
    updated_at: datetime | None
    organizer: Person | None
    attendees: tuple[Person, ...]
    html_link: str | None


def shown(event: Event, api: CalendarApi) -> ShownEvent:
    """The event, whose `raw` is in the words of that API; what is not to be understood there is left out."""
    words = _google(event.raw) if api == "google" else _outlook(event.raw)
    return ShownEvent(
        id=event.external_id,
        status=event.status,
        start=_time(event, "start"),
        end=_time(event, "end"),
        all_day=event.start is not None and event.start.date is not None,
        recurring_event_id=event.master_id,
        original_start=event.original_start,
        recurrence=event.recurrence,
        etag=event.etag,
        updated_at=event.updated_at,
        **words,
    )


def _google(raw: Mapping[str, Any]) -> dict[str, Any]:
    organizer = _dict(raw.get("organizer"))
    return {
        "title": text_of(raw, "summary"),
        "description": text_of(raw, "description"),
        "location": text_of(raw, "location"),
        "organizer": _person(text_of(organizer, "email"), text_of(organizer, "displayName")),
        "attendees": tuple(
            Person(text_of(each, "email"), text_of(each, "displayName"), _reply(each.get("responseStatus")))
            for each in _dicts(raw.get("attendees"))
        ),
        "html_link": _link(raw, "htmlLink"),
    }


def _outlook(raw: Mapping[str, Any]) -> dict[str, Any]:
    organizer = _dict(_dict(raw.get("organizer")).get("emailAddress"))
    return {
        "title": text_of(raw, "subject"),
        "description": text_of(_dict(raw.get("body")), "content") or text_of(raw, "bodyPreview"),
        "location": text_of(_dict(raw.get("location")), "displayName"),
        "organizer": _person(text_of(organizer, "address"), text_of(organizer, "name")),
        "attendees": tuple(
            Person(
                text_of(address := _dict(each.get("emailAddress")), "address"),
                text_of(address, "name"),
                _reply(_dict(each.get("status")).get("response")),
            )
            for each in _dicts(raw.get("attendees"))
        ),
        "html_link": _link(raw, "webLink"),
    }


def _time(event: Event, which: str) -> ShownTime | None:
    boundary = event.start if which == "start" else event.end
    if boundary is None:
        return None
    day = None if boundary.date is None else boundary.date.isoformat()
    return ShownTime(day, boundary.at, boundary.zone)


def _person(email: str | None, name: str | None) -> Person | None:
    return None if email is None and name is None else Person(email, name)


def _reply(response: object) -> str:
    return _REPLIES.get(response, "needs_action") if isinstance(response, str) else "needs_action"


def _link(raw: Mapping[str, Any], name: str) -> str | None:
    """Browsers follow it, so it leads to a web page or nowhere."""
    link = text_of(raw, name)
    return link if link is not None and link.startswith("https://") else None


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
