"""Which calendars a grant has: read from the provider now and then, since changes of that alone are not told."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from app.calendars import store
from app.calendars.asking import CalendarApis
from app.calendars.failures import note_failed
from app.calendars.retry import next_after, next_regular
from app.calendars.trouble import BaselineNeeded, ErrorType, SyncFailed, Trouble
from app.calendars.upstream import RemoteCalendar, Upstream
from app.clock import Clock
from app.db import Database
from app.grants.grant import GrantKey
from app.ids import uuid7

LIST_EVERY = timedelta(hours=1)
_MOST_PAGES = 100


class Lister:
    """Keeps the lists of calendars."""

    def __init__(self, db: Database, apis: CalendarApis, clock: Clock) -> None:
        self._db = db
        self._apis = apis
        self._clock = clock

    async def refresh(
        self, grant_id: UUID, key: GrantKey, upstream: Upstream, *, lineage_id: UUID, failures: int = 0
    ) -> None:
        """Stores what the provider lists. Raises SyncFailed, which is noted and says when
        next, and DatabaseUnavailable."""
        asked_at = self._clock.now()
        try:
            found = await self._listed(key, upstream)
        except SyncFailed as error:
            error.next_at = await self.give_up(grant_id, key, error.trouble, failures=failures)
            raise
        now = self._clock.now()
        next_list_at = next_regular(now, LIST_EVERY)
        with_ids = [(uuid7(now), each) for each in found.values()]
        async with self._db.begin() as tx:
            await store.put_listed(
                tx, grant_id, with_ids, lineage_id=lineage_id, asked_at=asked_at, next_list_at=next_list_at
            )

    async def _listed(self, key: GrantKey, upstream: Upstream) -> dict[str, RemoteCalendar]:
        found: dict[str, RemoteCalendar] = {}
        page = None
        for _ in range(_MOST_PAGES):
            try:
                answer = await self._apis.ask(key, upstream, upstream.list_calendars(page))
            except BaselineNeeded as error:  # of a list there is nothing to begin anew
                raise SyncFailed(_unusable(upstream, "list_refused")) from error
            listed = upstream.read_calendars(answer)
            found |= {each.external_id: each for each in listed.items}
            page = listed.next_page
            if page is None:
                return found
        raise SyncFailed(_unusable(upstream, "pages_repeat"))

    async def give_up(self, grant_id: UUID, key: GrantKey, trouble: Trouble, *, failures: int) -> datetime:
        """The list is not read this time, for that reason; when it is next."""
        note_failed(trouble, key.provider, grant_id=grant_id)
        error = {"error_type": trouble.error_type, "provider_code": trouble.provider_code}
        next_at = next_after(trouble, failures + 1, self._clock.now())
        async with self._db.begin() as tx:
            await store.note_list_failed(tx, grant_id, error=error, next_list_at=next_at)
        return next_at


def _unusable(upstream: Upstream, code: str) -> Trouble:
    return Trouble(ErrorType.PROVIDER_UNAVAILABLE, upstream.title, provider_code=code)
