"""Syncs calendars by the clock, for grants that somebody asked that for. Every replica ticks; the rows are shared."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import groupby

from app.calendars import run_store, store, sync_store
from app.calendars.asking import CalendarApis
from app.calendars.claimed import Claimed
from app.calendars.listing import Lister
from app.calendars.mirror import LEASE_TTL, Mirror
from app.calendars.outcome import SyncTrigger, concluded
from app.calendars.store import DueList
from app.calendars.sync import synced_together
from app.calendars.trouble import ErrorType, SyncFailed, Trouble
from app.calendars.upstream import Upstream
from app.clock import Clock
from app.db import Database
from app.drain import Drain
from app.errors import UnknownProvider
from app.ids import uuid7
from app.outages import DatabaseUnavailable
from app.telemetry import logger

log = logger(__name__)

EVERY = timedelta(seconds=5)
SWEEP_EVERY = timedelta(minutes=10)
_AT_ONCE = 16  # calendars are taken at most, and grants are in work
_LISTS_AT_ONCE = 8
_LOOK_SECONDS = 2.0
_RUNS_KEPT_FOR = timedelta(days=30)
_SWEPT = 500


class CalendarSchedule:
    """What jobs of calendars there are."""

    def __init__(
        self, db: Database, apis: CalendarApis, lister: Lister, mirror: Mirror, drain: Drain, clock: Clock
    ) -> None:
        self._db = db
        self._apis = apis
        self._lister = lister
        self._mirror = mirror
        self._drain = drain
        self._clock = clock

    async def sync_due(self) -> None:
        """Syncs calendars while there are any whose turn it is; one that takes long keeps none of the others waiting."""
        running: set[asyncio.Task[None]] = set()
        try:
            await self._sync_all(running)
        finally:  # none of them is left behind, whatever ended this
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _sync_all(self, running: set[asyncio.Task[None]]) -> None:
        taken = 0
        while not self._drain.begun:
            claimed = await self._claim(_AT_ONCE - len(running)) if len(running) < _AT_ONCE else []
            taken += len(claimed)
            for _, of_grant in groupby(sorted(claimed, key=_grant_id), key=_grant_id):
                running.add(asyncio.create_task(self._sync_of(list(of_grant))))
            if not running:
                break
            done, _ = await asyncio.wait(running, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            running -= done
        if taken:
            log.info("calendars.tick", calendars=taken)

    async def list_due(self) -> None:
        """Reads the lists of calendars again for which it is time."""
        async with self._db.begin() as tx:
            due = await store.take_due_lists(tx, rest=LEASE_TTL, limit=_LISTS_AT_ONCE)
        await asyncio.gather(*map(self._list, due))

    async def sweep(self) -> None:
        """Deletes what was synced by grants that are revoked, and old runs."""
        swept = _SWEPT
        while swept == _SWEPT and not self._drain.begun:
            async with self._db.begin() as tx:
                swept = await store.erase_revoked(tx, limit=_SWEPT)
        swept = _SWEPT
        while swept == _SWEPT and not self._drain.begun:
            async with self._db.begin() as tx:
                swept = await run_store.sweep(tx, kept_for=_RUNS_KEPT_FOR, limit=_SWEPT)

    async def _claim(self, limit: int) -> list[Claimed]:
        async with self._db.begin() as tx:
            owner = uuid7(self._clock.now())
            return await sync_store.claim_due(tx, owner=owner, ttl=LEASE_TTL, limit=limit)

    async def _sync_of(self, claimed: list[Claimed]) -> None:
        """Those of one grant, whose trouble is not the others'."""
        try:
            await self._sync(claimed)
        except DatabaseUnavailable as error:
            log.warning("calendars.sync_failed", grant_id=_grant_id(claimed[0]), detail=error.detail)
        except Exception:
            log.exception("calendars.sync_crashed", grant_id=_grant_id(claimed[0]))

    async def _sync(self, claimed: list[Claimed]) -> None:
        """A run is kept where there is something to tell."""
        started_at, first = self._clock.now(), claimed[0]
        upstream = self._upstream(first.key.provider)
        if upstream is None:
            nowhere = Trouble(ErrorType.MISCONFIGURED, first.key.provider, provider_code="no_calendar_api")
            outcomes = [await self._mirror.give_up(each, nowhere) for each in claimed]
        else:
            outcomes = list((await synced_together(self._mirror, claimed, upstream)).values())
        if all(each.changed_nothing for each in outcomes):
            return
        title = first.key.provider if upstream is None else upstream.title
        outcome = concluded(uuid7(started_at), outcomes, title=title)
        async with self._db.begin() as tx:
            await run_store.add(
                tx, first.grant_id, outcome, trigger=SyncTrigger.SCHEDULER, started_at=started_at
            )

    async def _list(self, due: DueList) -> None:
        upstream = self._upstream(due.key.provider)
        if upstream is None:
            nowhere = Trouble(ErrorType.MISCONFIGURED, due.key.provider, provider_code="no_calendar_api")
            await self._lister.give_up(due.grant_id, due.key, nowhere, failures=due.failures)
            return
        try:
            await self._lister.refresh(
                due.grant_id, due.key, upstream, lineage_id=due.lineage_id, failures=due.failures
            )
        except SyncFailed:
            pass  # it is noted, and put off
        except DatabaseUnavailable as error:
            log.warning("calendars.list_failed", grant_id=str(due.grant_id), detail=error.detail)
        except Exception:  # one grant's trouble is not the others'
            log.exception("calendars.list_crashed", grant_id=str(due.grant_id))

    def _upstream(self, provider: str) -> Upstream | None:
        try:
            return self._apis.of(provider)
        except UnknownProvider:  # its registration was deleted
            return None


def _grant_id(claimed: Claimed) -> str:
    return str(claimed.grant_id)
