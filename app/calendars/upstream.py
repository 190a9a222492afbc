"""`Upstream`: what a provider's calendar API is asked, and what its answers mean. Two implementations, both pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.calendars.event import Event
from app.calendars.trouble import Trouble
from app.oauth.wire import HttpAnswer, HttpRequest


@dataclass(frozen=True, slots=True)
class RemoteCalendar:
    """A calendar in a grant's list of them."""

    external_id: str
    name: str
    zone: str | None
    access_role: str
    is_primary: bool
    etag: str | None


@dataclass(frozen=True, slots=True)
class Calendars:
    """A page of that list; `next_page` None: the last one."""

    items: tuple[RemoteCalendar, ...]
    next_page: str | None


@dataclass(frozen=True, slots=True)
class Window:
    """From when until when events are listed, for a provider that lists no others."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Place:
    """How far a list has been read: after a baseline or an incremental list (`cursor`), and in the midst of one (`page`).
    Neither: at the beginning of a baseline."""

    cursor: str | None = None
    page: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A part of what there is, or of what has changed. `removed` are ids.

    `next_page` None: it is the last one, and what changes after it is listed from `cursor` on. `unreadable`: ids of events
    that nothing could be made of, which are left out.
    """

    events: tuple[Event, ...]
    removed: tuple[str, ...]
    next_page: str | None
    cursor: str | None
    unreadable: tuple[str, ...] = ()


# An event as it is now, by its id; None: it is there no more.
Change = tuple[str, Event | None]


def page_of(
    changes: Iterable[Change], *, next_page: str | None, cursor: str | None, unreadable: Iterable[str] = ()
) -> Page:
    """What comes of changes in the order in which they are listed: of several of one event the last, unless it is known to be
    older."""
    latest: dict[str, Event | None] = {}
    for external_id, event in changes:
        known = latest.get(external_id)
        if event is None or known is None or not event.is_older_than(known):
            latest[external_id] = event
    return Page(
        tuple(event for event in latest.values() if event is not None),
        tuple(external_id for external_id, event in latest.items() if event is None),
        next_page,
        cursor,
        tuple(unreadable),
    )


class Upstream(Protocol):
    """One provider's calendar API. Requests come without the access token. Whatever reads an answer raises SyncFailed for one
    that is none, and BaselineNeeded where the provider says so."""

    title: str
    """What people call it."""
    windowed: bool
    """Whether a baseline lists a `Window` only."""

    def list_calendars(self, page: str | None) -> HttpRequest: ...

    def read_calendars(self, answer: HttpAnswer) -> Calendars: ...

    def list_events(self, calendar_id: str, place: Place, window: Window | None) -> HttpRequest: ...

    def read_events(self, answer: HttpAnswer) -> Page: ...

    def params_hash(self) -> bytes:
        """Of what a baseline is asked with besides its window: another one means a new baseline."""
        ...

    def trouble_in(self, answer: HttpAnswer) -> Trouble:
        """What an answer of 400 and more means."""
        ...

    def wants_baseline(self, answer: HttpAnswer) -> bool:
        """Whether it says that the cursor is worth nothing any more."""
        ...
