"""A user's calendars, of all of his grants together: synced when asked, or when it is time for that (`auto`)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

from app.calendars import run_store, store
from app.calendars.asking import CalendarApis
from app.calendars.outcome import SyncOutcome, SyncStatus, SyncTrigger
from app.calendars.store import Account
from app.calendars.sync import CalendarSyncer, Wanted
from app.calendars.upstream import Upstream
from app.clock import Clock
from app.db import Database
from app.grants.grant import Grant
from app.telemetry import logger

log = logger(__name__)

_PATIENCE = timedelta(seconds=10)  # of who opens a page


class UserCalendars:
    """What requests ask for."""

    def __init__(self, db: Database, apis: CalendarApis, syncer: CalendarSyncer, clock: Clock) -> None:
        self._db = db
        self._apis = apis
        self._syncer = syncer
        self._clock = clock
        self._under_way: dict[object, asyncio.Task[SyncOutcome]] = {}

    async def sync(self, grant: Grant, wanted: Wanted) -> SyncOutcome:
        """Now. Who asks the same for the same grant meanwhile gets the same answer. It goes on when the caller hangs up.

        Raises UnknownProvider, and DatabaseUnavailable.
        """
        return await asyncio.shield(self._begun(grant, wanted))

    async def auto(self, grant: Grant, *, min_interval: timedelta) -> SyncOutcome:
        """From now on by the clock as well; now if the last good sync is longer ago than `min_interval`, else what came of
        the last one. What takes long goes on behind the answer.

        Raises UnknownProvider, and DatabaseUnavailable.
        """
        async with self._db.begin() as tx:
            account = await store.account_of(tx, grant.id)
            last = await run_store.latest(tx, grant.id, trigger=SyncTrigger.AUTO)
            if account is not None and not account.scheduled:
                await store.schedule(tx, grant.id)
        if account is not None and last is not None and self._is_recent(account, grant, min_interval):
            return replace(last, next_at=_next_at(account))
        task = self._begun(grant, Wanted(SyncTrigger.AUTO, scheduled=True))
        done, _ = await asyncio.wait({task}, timeout=_PATIENCE.total_seconds())
        return task.result() if done else self._still_running(grant)

    async def close(self) -> None:
        """Ends the syncs under way: each goes on from where it was, wherever it is begun next."""
        for task in self._under_way.values():
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    def _begun(self, grant: Grant, wanted: Wanted) -> asyncio.Task[SyncOutcome]:
        key = (grant.id, wanted)
        if key not in self._under_way:
            task = asyncio.create_task(self._syncer.sync(grant, self._upstream(grant), wanted))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key))
        return self._under_way[key]

    def _upstream(self, grant: Grant) -> Upstream:
        upstream = self._apis.of(grant.key.provider)
        assert upstream is not None  # grants of other providers are not chosen
        return upstream

    def _is_recent(self, account: Account, grant: Grant, min_interval: timedelta) -> bool:
        """Whether every calendar was synced well since then, and not badly after that; none at all is worth another look."""
        since = self._clock.now() - min_interval
        is_of_grant = account.lineage_id == grant.lineage_id  # else it was connected anew, perhaps elsewhere
        return (
            is_of_grant
            and bool(account.calendars)
            and all(
                each.last_error is None and each.last_ok_at is not None and each.last_ok_at > since
                for each in account.calendars
            )
        )

    def _still_running(self, grant: Grant) -> SyncOutcome:
        title = self._upstream(grant).title
        return SyncOutcome(
            None,
            SyncStatus.PARTIAL,
            f"Your {title} is being synced at this moment.",
            error_type=None,
            calendars=[],
            next_at=None,
        )


def _next_at(account: Account) -> datetime | None:
    return min((each.next_attempt_at for each in account.calendars if each.next_attempt_at), default=None)
