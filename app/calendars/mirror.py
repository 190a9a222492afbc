"""Makes the stored events of one calendar what the provider has.

    changes    from the cursor on: page by page into the store; the last with the new cursor, in one transaction
    baseline   all of it, as a new generation beside what is there; what the last page leaves unseen goes with it

Readers see the old until they see the new: of what was there nothing is missing meanwhile, and nothing is there twice. (Of the very
first baseline they see what has come so far.) A crash leaves the cursor as it was, or none, and what was stored is stored once more.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from app.calendars import event_store, store, sync_store
from app.calendars.asking import CalendarApis
from app.calendars.claimed import FULL_EVERY, Claimed, window_around
from app.calendars.failures import note_failed
from app.calendars.outcome import CalendarOutcome, CalendarStatus, Counts, Mode
from app.calendars.retry import next_after, next_regular
from app.calendars.sync_store import LeaseLost
from app.calendars.trouble import BaselineNeeded, ErrorType, SyncFailed, Trouble
from app.calendars.upstream import Page, Place, Upstream, Window
from app.clock import Clock
from app.db import Database, Tx
from app.metrics import CALENDAR_SYNCS
from app.outages import DatabaseUnavailable
from app.telemetry import logger
from app.vault.seal import CannotOpen
from app.vault.vault import Vault

log = logger(__name__)

LEASE_TTL = timedelta(
    seconds=90
)  # longer than a page takes, unless everything goes wrong; then another one begins again
_MOST_PAGES = 5000
_RELEASE_SECONDS = 1.0


@dataclass
class _Reading:
    """One way through a list."""

    claimed: Claimed
    upstream: Upstream
    mode: Mode
    generation: int
    window: Window | None
    cursor: str | None
    counts: Counts = field(default_factory=Counts)
    pages: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    may_orphan: bool = False


class Mirror:
    """Syncs calendars that are claimed, each by itself."""

    def __init__(
        self, db: Database, vault: Vault, apis: CalendarApis, clock: Clock, *, every: timedelta
    ) -> None:
        self._db = db
        self._vault = vault
        self._apis = apis
        self._clock = clock
        self._every = every

    async def sync(self, claimed: Claimed, upstream: Upstream, *, full: bool = False) -> CalendarOutcome:
        """What became of it; its lease has ended then. `full`: a baseline, whatever there is.

        Raises DatabaseUnavailable, and then the lease ends by itself.
        """
        try:
            return await self._synced(claimed, upstream, _begun(claimed), full=full)
        except asyncio.CancelledError:  # this replica leaves; another one need not wait for the lease to end
            await self._release(claimed)
            raise
        except LeaseLost:
            return replace(_begun(claimed), status=CalendarStatus.RUNNING)
        except SyncFailed as error:
            return await self.give_up(claimed, error.trouble)
        except DatabaseUnavailable:
            raise
        except Exception:  # whatever one calendar comes to, the others are synced
            log.exception("calendar.crashed", calendar_id=str(claimed.calendar_id))
            return await self.give_up(claimed, Trouble(ErrorType.INTERNAL, upstream.title))

    async def give_up(self, claimed: Claimed, trouble: Trouble) -> CalendarOutcome:
        """It is not synced this time, for that reason; ends its lease."""
        next_at = next_after(trouble, claimed.failures + 1, self._clock.now())
        error = {"error_type": trouble.error_type, "provider_code": trouble.provider_code}
        try:
            async with self._db.begin() as tx:
                await sync_store.give_up(tx, claimed, error=error, next_attempt_at=next_at)
                if trouble.error_type is ErrorType.CALENDAR_NOT_FOUND:
                    await store.want_list(tx, claimed.grant_id)
        except LeaseLost:
            return replace(_begun(claimed), status=CalendarStatus.RUNNING)
        note_failed(trouble, claimed.key.provider, grant_id=claimed.grant_id)
        return replace(_begun(claimed), status=CalendarStatus.FAILED, trouble=trouble, next_at=next_at)

    async def _release(self, claimed: Claimed) -> None:
        with suppress(DatabaseUnavailable, TimeoutError):
            async with asyncio.timeout(_RELEASE_SECONDS), self._db.begin() as tx:
                await sync_store.release(tx, claimed)

    async def _synced(
        self, claimed: Claimed, upstream: Upstream, outcome: CalendarOutcome, *, full: bool
    ) -> CalendarOutcome:
        rebuilt = False
        if not full and not claimed.wants_baseline(upstream.params_hash(), self._clock.now()):
            try:
                counts, next_at = await self._changes(claimed, upstream)
                return replace(outcome, counts=counts, next_at=next_at)
            except BaselineNeeded:
                rebuilt = True
        counts, next_at = await self._baseline(claimed, upstream)
        return replace(outcome, mode=Mode.FULL, counts=counts, next_at=next_at, rebuilt=rebuilt)

    async def _changes(self, claimed: Claimed, upstream: Upstream) -> tuple[Counts, datetime]:
        assert claimed.sealed_cursor is not None
        try:
            cursor = self._vault.open(claimed.sealed_cursor, claimed.place_of_cursor(claimed.generation))
        except CannotOpen as error:
            log.error("calendar.cursor_unreadable", calendar_id=str(claimed.calendar_id), detail=str(error))
            raise BaselineNeeded from error
        reading = _Reading(claimed, upstream, Mode.INCREMENTAL, claimed.generation, claimed.window, cursor)
        return await self._read(reading)

    async def _baseline(self, claimed: Claimed, upstream: Upstream) -> tuple[Counts, datetime]:
        async with self._db.begin() as tx:
            generation = await sync_store.begin_baseline(tx, claimed, ttl=LEASE_TTL)
        window = window_around(self._clock.now()) if upstream.windowed else None
        try:
            return await self._read(_Reading(claimed, upstream, Mode.FULL, generation, window, None))
        except BaselineNeeded as error:  # once is enough
            raise SyncFailed(_unusable(upstream, "baseline_refused")) from error

    async def _read(self, reading: _Reading) -> tuple[Counts, datetime]:
        """All pages, stored; what was new, changed and gone, and when it is synced next."""
        upstream, place = reading.upstream, Place(reading.cursor)
        while True:
            request = upstream.list_events(reading.claimed.external_id, place, reading.window)
            page = upstream.read_events(await self._apis.ask(reading.claimed.key, upstream, request))
            if page.unreadable:
                log.warning("calendar.events_unreadable", ids=page.unreadable[:10], of=len(page.unreadable))
            if page.next_page is None:
                next_at = await self._finish(reading, page)
                return reading.counts, next_at
            _require_progress(reading, page)
            async with self._db.begin() as tx:
                await sync_store.hold(tx, reading.claimed, ttl=LEASE_TTL)
                await self._store(tx, reading, page)
            place = Place(reading.cursor, page.next_page)

    async def _store(self, tx: Tx, reading: _Reading, page: Page) -> None:
        calendar_id, counts = reading.claimed.calendar_id, Counts()
        if page.removed:
            await self._require_no_series(tx, reading, page)
            counts += await event_store.remove(tx, calendar_id, page.removed)
            reading.removed.update(page.removed)
        if page.events:
            counts += await event_store.put(tx, calendar_id, page.events, generation=reading.generation)
        reading.may_orphan |= any(each.is_cancelled for each in page.events)
        reading.counts += counts

    async def _require_no_series(self, tx: Tx, reading: _Reading, page: Page) -> None:
        """Of a series that is gone a provider with a window may leave some instances unsaid."""
        told_all = reading.mode is Mode.FULL or not reading.upstream.windowed
        if not told_all and await event_store.are_of_series(tx, reading.claimed.calendar_id, page.removed):
            raise BaselineNeeded

    async def _finish(self, reading: _Reading, page: Page) -> datetime:
        """Stores the last page and the cursor behind it, together."""
        if page.cursor is None:
            raise SyncFailed(_unusable(reading.upstream, "no_cursor"))
        claimed, now = reading.claimed, self._clock.now()
        place, next_at = claimed.place_of_cursor(reading.generation), next_regular(now, self._every)
        async with self._db.begin() as tx:
            await sync_store.finish(
                tx,
                claimed,
                sealed_cursor=self._vault.seal(page.cursor, place),
                next_attempt_at=next_at,
                baseline=_baseline_columns(reading, now) if reading.mode is Mode.FULL else None,
            )
            await self._store(tx, reading, page)
            if reading.mode is Mode.FULL:
                reading.counts += await event_store.drop_unseen(
                    tx, claimed.calendar_id, generation=reading.generation
                )
            if reading.removed:  # whatever was listed of a series before it was told that it is gone
                reading.counts += await event_store.remove_instances(tx, claimed.calendar_id, reading.removed)
            if reading.may_orphan:
                await event_store.drop_orphans(tx, claimed.calendar_id)
        CALENDAR_SYNCS.labels(claimed.key.provider, "success").inc()
        return next_at


def _begun(claimed: Claimed) -> CalendarOutcome:
    return CalendarOutcome(claimed.external_id, claimed.name, CalendarStatus.SUCCESS, Mode.INCREMENTAL)


def _baseline_columns(reading: _Reading, now: datetime) -> dict[str, Any]:
    window = reading.window
    return {
        "params_hash": reading.upstream.params_hash(),
        "window_since": None if window is None else window.since,
        "window_until": None if window is None else window.until,
        "last_full_at": now,
        "full_due_at": next_regular(now, FULL_EVERY),  # staggered
    }


def _require_progress(reading: _Reading, page: Page) -> None:
    """A cursor that leads back to where it was never ends."""
    assert page.next_page is not None
    if page.next_page not in reading.pages and len(reading.pages) < _MOST_PAGES:
        reading.pages.add(page.next_page)
        return
    if reading.mode is Mode.INCREMENTAL:
        raise BaselineNeeded
    raise SyncFailed(_unusable(reading.upstream, "pages_repeat"))


def _unusable(upstream: Upstream, code: str) -> Trouble:
    return Trouble(ErrorType.PROVIDER_UNAVAILABLE, upstream.title, provider_code=code)
