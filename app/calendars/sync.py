"""Syncs the calendars of a grant: when somebody asks (`CalendarSyncer`), and by the clock (`schedule`).

account -> list of calendars, if it is time for that -> claim -> each calendar by itself (`mirror`) -> what it came to
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.calendars import run_store, store, sync_store
from app.calendars.asking import CalendarApis
from app.calendars.claimed import Claimed
from app.calendars.listing import Lister
from app.calendars.mirror import LEASE_TTL, Mirror
from app.calendars.outcome import CalendarOutcome, CalendarStatus, Mode, SyncOutcome, SyncTrigger, concluded
from app.calendars.store import Account, Known
from app.calendars.trouble import OF_THE_GRANT, ErrorType, SyncFailed, Trouble
from app.calendars.upstream import Upstream
from app.calendars.writes import PRIMARY
from app.clock import Clock
from app.db import Database
from app.grants.grant import Grant
from app.ids import uuid7
from app.outages import DatabaseUnavailable
from app.telemetry import logger

log = logger(__name__)

_AT_ONCE = 4  # calendars of one grant: Outlook serves no more of one mailbox


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be synced of a grant. `calendar_ids`: the provider's, or `primary`; none: all of them. `full`: everything is
    fetched again. `scheduled`: from now on also by the clock."""

    trigger: SyncTrigger
    calendar_ids: tuple[str, ...] = ()
    full: bool = False
    scheduled: bool = False


class CalendarSyncer:
    """Syncs on demand. Safe on any number of replicas: a calendar is one's at a time."""

    def __init__(
        self, db: Database, apis: CalendarApis, lister: Lister, mirror: Mirror, clock: Clock
    ) -> None:
        self._db = db
        self._apis = apis
        self._lister = lister
        self._mirror = mirror
        self._clock = clock

    async def sync(self, grant: Grant, upstream: Upstream, wanted: Wanted) -> SyncOutcome:
        """What it came to, which is also kept as a run. Whatever the provider does, nothing is raised for that.

        Raises DatabaseUnavailable.
        """
        run_id, started_at = uuid7(self._clock.now()), self._clock.now()
        try:
            account = await self._listed(grant, upstream, wanted)
        except SyncFailed as error:
            outcome = concluded(
                run_id, [], title=upstream.title, trouble=error.trouble, next_at=error.next_at
            )
        except DatabaseUnavailable:
            raise
        except Exception:  # whoever opens a page is told so
            log.exception("calendars.crashed", grant_id=str(grant.id))
            ours = Trouble(ErrorType.INTERNAL, upstream.title)
            outcome = concluded(run_id, [], title=upstream.title, trouble=ours)
        else:
            calendars = await self._synced(account, upstream, wanted)
            outcome = concluded(run_id, calendars, title=upstream.title)
        async with self._db.begin() as tx:
            await run_store.add(tx, grant.id, outcome, trigger=wanted.trigger, started_at=started_at)
        return outcome

    async def _listed(self, grant: Grant, upstream: Upstream, wanted: Wanted) -> Account:
        """The account with a list of calendars that is not too old. Raises SyncFailed."""
        async with self._db.begin() as tx:
            account = await store.account_of(tx, grant.id)
            if account is None:
                await store.open_account(tx, grant.id)
            if wanted.scheduled and (account is None or not account.scheduled):
                await store.schedule(tx, grant.id)
        is_due = (
            account is None or account.lineage_id != grant.lineage_id or self._is_list_due(account, wanted)
        )
        if account is not None and not is_due:
            return account
        if account is not None and self._is_left_alone(account.last_error, account.next_list_at):
            busy = SyncFailed(Trouble(ErrorType.RATE_LIMITED, upstream.title))
            busy.next_at = account.next_list_at
            raise busy
        failures = 0 if account is None else account.failures
        await self._lister.refresh(
            grant.id, grant.key, upstream, lineage_id=grant.lineage_id, failures=failures
        )
        async with self._db.begin() as tx:
            listed = await store.account_of(tx, grant.id)
        assert listed is not None
        return listed

    def _is_list_due(self, account: Account, wanted: Wanted) -> bool:
        if wanted.full or not account.calendars or account.next_list_at is None:
            return True
        return account.next_list_at <= self._clock.now() or bool(_lacking(account, wanted.calendar_ids))

    async def _synced(
        self, account: Account, upstream: Upstream, wanted: Wanted
    ) -> Sequence[CalendarOutcome]:
        chosen = [each for each in account.calendars if _is_wanted(each, wanted.calendar_ids)]
        outcomes = [_absent(each, upstream) for each in _lacking(account, wanted.calendar_ids)]
        left_alone = {
            each.id: _busy(each, upstream)
            for each in chosen
            if self._is_left_alone(each.last_error, each.next_attempt_at)
        }
        asked = [each.id for each in chosen if each.id not in left_alone]
        async with self._db.begin() as tx:
            claimed = await sync_store.claim(tx, asked, owner=uuid7(self._clock.now()), ttl=LEASE_TTL)
        done = await synced_together(self._mirror, claimed, upstream, full=wanted.full)
        return [done.get(each.id) or left_alone.get(each.id) or _running(each) for each in chosen] + outcomes

    def _is_left_alone(self, last_error: Mapping[str, Any] | None, next_at: datetime | None) -> bool:
        """Whether the provider said that it is asked too often, and until when it wants not to be."""
        busy = last_error is not None and last_error.get("error_type") == ErrorType.RATE_LIMITED
        return busy and next_at is not None and next_at > self._clock.now()


async def synced_together(
    mirror: Mirror, claimed: Sequence[Claimed], upstream: Upstream, *, full: bool = False
) -> dict[UUID, CalendarOutcome]:
    """The calendars of one grant, a few at a time. Trouble that is the grant's is met once, not with each of them."""
    places, of_all = asyncio.Semaphore(_AT_ONCE), list[Trouble]()

    async def one(each: Claimed) -> CalendarOutcome:
        async with places:
            if of_all:
                return await mirror.give_up(each, of_all[0])
            outcome = await mirror.sync(each, upstream, full=full)
        if outcome.trouble is not None and outcome.trouble.error_type in OF_THE_GRANT:
            of_all.append(outcome.trouble)
        return outcome

    outcomes = await asyncio.gather(*map(one, claimed))
    return {each.calendar_id: outcome for each, outcome in zip(claimed, outcomes, strict=True)}


def _is_wanted(calendar: Known, wanted: Collection[str]) -> bool:
    return not wanted or calendar.external_id in wanted or (calendar.is_primary and PRIMARY in wanted)


def _lacking(account: Account, wanted: Collection[str]) -> list[str]:
    """Of the calendars that are wanted those that are not in the list."""
    known = {each.external_id for each in account.calendars}
    if any(each.is_primary for each in account.calendars):
        known.add(PRIMARY)
    return [each for each in wanted if each not in known]


def _absent(external_id: str, upstream: Upstream) -> CalendarOutcome:
    trouble = Trouble(ErrorType.CALENDAR_NOT_FOUND, upstream.title)
    return CalendarOutcome(external_id, external_id, CalendarStatus.FAILED, Mode.INCREMENTAL, trouble=trouble)


def _busy(calendar: Known, upstream: Upstream) -> CalendarOutcome:
    trouble, next_at = Trouble(ErrorType.RATE_LIMITED, upstream.title), calendar.next_attempt_at
    return CalendarOutcome(
        calendar.external_id,
        calendar.name,
        CalendarStatus.FAILED,
        Mode.INCREMENTAL,
        trouble=trouble,
        next_at=next_at,
    )


def _running(calendar: Known) -> CalendarOutcome:
    return CalendarOutcome(calendar.external_id, calendar.name, CalendarStatus.RUNNING, Mode.INCREMENTAL)
