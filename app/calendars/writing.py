"""Writes events through to their provider, and into the mirror, so that who reads next sees what he wrote.

the provider -> one transaction: the event as it answered it, and the audit trail

What a crash leaves undone between the two the next sync does. A new event has an identity of its own, so the provider makes one
of it however often it is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import uuid4

from app.audit import store as audit
from app.audit.event import AuditEvent
from app.calendars import event_store, heard_store, sync_store
from app.calendars.asking import CalendarApis
from app.calendars.draft import Draft
from app.calendars.event import Event, Kind
from app.calendars.refusal import refusal
from app.calendars.sync_store import Mirrored
from app.calendars.trouble import ErrorType, SyncFailed, Trouble
from app.calendars.upstream import Upstream
from app.calendars.writes import VERDICTS, Verdict, Writes, identity_of, verdict_of
from app.clock import Clock
from app.db import Database, Tx
from app.errors import BrokerError, Conflict, NotFound, ValidationFailed
from app.grants.grant import Grant
from app.oauth.wire import HttpAnswer, HttpRequest

_TICK = timedelta(seconds=1)  # what the `Date` of an answer is exact to


@dataclass(frozen=True, slots=True)
class Target:
    """A calendar of a grant, by the provider's id or as `primary`, and who writes there."""

    grant: Grant
    calendar_id: str
    actor: str


@dataclass(frozen=True, slots=True)
class Written:
    """An event as its provider has it; `calendar_id`: the provider's, as far as it is known."""

    event: Event
    calendar_id: str


class EventWriter:
    """Whatever is raised for a provider's answer is what callers are told: ReconnectRequired, InsufficientScope, NotFound,
    Conflict, ValidationFailed, and UpstreamError; besides that UnknownProvider and DatabaseUnavailable."""

    def __init__(self, db: Database, apis: CalendarApis, clock: Clock) -> None:
        self._db = db
        self._apis = apis
        self._clock = clock

    async def create(self, target: Target, draft: Draft, *, name: str | None) -> Written:
        """The new event. `name`: the caller's own for it; whoever uses it again gets the event that is there, and without one
        each call makes another. May be repeated with a name."""
        writes = self._apis.writes_of(target.grant.key.provider)
        identity = identity_of(target.grant.id, name or f"{uuid4()}")
        answer = await self._asked(target, writes.create(target.calendar_id, draft, identity))
        if verdict_of(answer) is Verdict.DUPLICATE and writes.identity_is_id:
            answer = await self._asked(target, writes.read(target.calendar_id, identity))
            if verdict_of(answer) is Verdict.ABSENT:
                raise _deleted(target)
        if self._event(target, writes, answer).is_cancelled:
            raise _deleted(target)
        return await self._stored(target, writes, answer, "calendar.event_created")

    async def change(self, target: Target, event_id: str, draft: Draft, *, if_match: str | None) -> Written:
        """The event as it is then. `if_match`: only if its etag is that one. What is asked for on that condition is sent once:
        the second time the condition fails for our own doing."""
        writes = self._apis.writes_of(target.grant.key.provider)
        request = writes.change(target.calendar_id, event_id, draft, if_match=if_match)
        answer = await self._asked(target, request, repeatable=if_match is None)
        return await self._stored(target, writes, answer, "calendar.event_changed")

    async def delete(self, target: Target, event_id: str, *, if_match: str | None) -> None:
        """It is gone, also if it was before. May be repeated."""
        writes = self._apis.writes_of(target.grant.key.provider)
        answer = await self._asked(target, writes.delete(target.calendar_id, event_id, if_match=if_match))
        if verdict_of(answer) is not Verdict.ABSENT:
            self._require_done(target, answer)
        at = self._moment_of(answer)
        async with self._db.begin() as tx:
            mirrored = await sync_store.mirrored(tx, target.grant.id, target.calendar_id)
            if mirrored is not None and not await event_store.bury(tx, mirrored.calendar_id, event_id, at=at):
                await self._put_removed(tx, mirrored, writes.removed(event_id), at)
            await self._record(tx, target, "calendar.event_deleted", event_id)

    async def _asked(self, target: Target, request: HttpRequest, *, repeatable: bool = True) -> HttpAnswer:
        upstream = self._upstream(target)
        try:
            return await self._apis.ask(
                target.grant.key, upstream, request, repeatable=repeatable, also=VERDICTS
            )
        except SyncFailed as error:
            raise _refused(target, error.trouble) from error

    def _event(self, target: Target, writes: Writes, answer: HttpAnswer) -> Event:
        self._require_done(target, answer)
        try:
            return writes.event(answer, zone=None)
        except SyncFailed as error:
            raise _refused(target, error.trouble) from error

    def _require_done(self, target: Target, answer: HttpAnswer) -> None:
        verdict = verdict_of(answer)
        if verdict is not Verdict.DONE:
            raise _about(target, _judged(verdict, self._upstream(target).title))

    def _upstream(self, target: Target) -> Upstream:
        upstream = self._apis.of(target.grant.key.provider)
        assert upstream is not None  # grants of other providers are not chosen
        return upstream

    async def _stored(self, target: Target, writes: Writes, answer: HttpAnswer, action: str) -> Written:
        event = self._event(target, writes, answer)
        async with self._db.begin() as tx:
            mirrored = await sync_store.mirrored(tx, target.grant.id, target.calendar_id)
            if mirrored is not None:
                event = writes.event(answer, zone=mirrored.zone)
                await self._put(tx, mirrored, event)
            await self._record(tx, target, action, event.external_id)
        return Written(event, target.calendar_id if mirrored is None else mirrored.external_id)

    async def _put(self, tx: Tx, mirrored: Mirrored, event: Event) -> None:
        """With the generation of now: a baseline that is under way must not take it for one that it did not see."""
        if _is_outside(event, mirrored):
            await event_store.remove(tx, mirrored.calendar_id, [event.external_id])
            return
        await event_store.put(tx, mirrored.calendar_id, [event], generation=mirrored.generation)
        if event.kind is Kind.SERIES and not event.recurrence:  # its instances are the provider's to tell
            await heard_store.want_sync(tx, [mirrored.calendar_id])

    async def _put_removed(self, tx: Tx, mirrored: Mirrored, event: Event | None, at: datetime) -> None:
        """An instance of which nothing was stored: its series goes on without it."""
        if event is None:
            return
        assert event.master_id is not None
        if await event_store.are_of_series(tx, mirrored.calendar_id, [event.master_id]):
            await event_store.put(
                tx, mirrored.calendar_id, [replace(event, updated_at=at)], generation=mirrored.generation
            )

    async def _record(self, tx: Tx, target: Target, action: str, event_id: str) -> None:
        key = target.grant.key
        details: Mapping[str, Any] = {"calendar_id": target.calendar_id, "event_id": event_id}
        event = AuditEvent(action, target.actor, key.provider, key.user_id, target.grant.id, details)
        await audit.record(tx, event, now=self._clock.now())

    def _moment_of(self, answer: HttpAnswer) -> datetime:
        """By the provider's clock, which its `updated` go by; nothing that it answered before is as late."""
        try:
            moment = parsedate_to_datetime(answer.headers.get("date", "")).astimezone(UTC)
        except (ValueError, TypeError, OverflowError):
            moment = self._clock.now()
        return moment + _TICK


def _is_outside(event: Event, mirrored: Mirrored) -> bool:
    """Whether syncs do not store it: no list has it."""
    window = mirrored.window
    if window is None or event.start is None or event.end is None or event.kind is Kind.SERIES:
        return False
    return event.start.earliest >= window.until or event.end.latest < window.since


def _judged(verdict: Verdict, title: str) -> BrokerError:
    if verdict is Verdict.ABSENT:
        return NotFound(f"There is no such event, or no such calendar, at {title}.")
    if verdict is Verdict.REFUSED:
        return ValidationFailed(
            f"{title} does not accept the event as it is.",
            fields={
                "body": "is not what the provider accepts: look at the times, the recurrence and the attendees"
            },
        )
    if verdict is Verdict.DUPLICATE:
        return Conflict(f"{title} is writing this event already, or has another in its place; try again.")
    return Conflict("The event was changed meanwhile; read it again.")


def _deleted(target: Target) -> BrokerError:
    return _about(target, Conflict("There was an event with this id, and it was deleted; choose another id."))


def _refused(target: Target, trouble: Trouble) -> BrokerError:
    sentence = trouble.sentence()
    if trouble.error_type is ErrorType.INTERNAL:
        sentence = f"{trouble.calendar} did not take what we sent. It is on our side."
    elif trouble.error_type is ErrorType.CALENDAR_NOT_FOUND:
        sentence = (
            f"This account has no such calendar at {trouble.calendar}, or may not change what is in it."
        )
    return refusal(trouble.error_type, sentence, target.grant, retry_after=trouble.retry_after)


def _about(target: Target, error: BrokerError) -> BrokerError:
    key = target.grant.key
    error.about(provider=key.provider, user_id=key.user_id, grant_id=target.grant.id)
    return error
