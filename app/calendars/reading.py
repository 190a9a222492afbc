"""`CalendarReader`: what syncs have stored, as people see it. It asks no provider."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from app.calendars import reading_store as store
from app.calendars.occurrence import CalendarView, Occurrence
from app.calendars.stored import Run, StoredCalendar
from app.db import Database
from app.errors import ValidationFailed

LONGEST = timedelta(days=366)
MOST_OCCURRENCES = 20_000
_MOST_WORK = 1_000_000  # of all series together: about half a second


class CalendarReader:
    """Looks, and changes nothing. Who may see what is the caller's to know."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def calendars(self, grant_ids: Sequence[UUID]) -> list[StoredCalendar]:
        """Those in the grants' lists, with how their syncs went. Raises DatabaseUnavailable."""
        async with self._db.begin() as tx:
            return await store.calendars_of(tx, grant_ids)

    async def events(
        self, calendar_ids: Sequence[UUID], since: datetime, until: datetime
    ) -> list[Occurrence]:
        """What is seen of these calendars in [since, until), by start: recurring events as often as they come, cancelled ones
        not at all.

        Raises ValidationFailed where that is too long or too much, and DatabaseUnavailable.
        """
        _require_short(since, until)
        async with self._db.begin() as tx:
            zones = await store.zones(tx, calendar_ids)
            found = await store.events_between(tx, calendar_ids, since, until, limit=MOST_OCCURRENCES + 1)
        if sum(map(len, found.values())) > MOST_OCCURRENCES:  # there may be more than were read
            raise _too_much()
        occurrences: list[Occurrence] = []
        work = 0
        for calendar_id, events in found.items():
            for shown in CalendarView(calendar_id, zones.get(calendar_id), events, since, until).shown():
                occurrences += shown.occurrences
                work += shown.work
                if work > _MOST_WORK or len(occurrences) > MOST_OCCURRENCES:
                    raise _too_much()
                await asyncio.sleep(0)  # others wait for the processor
        return sorted(occurrences, key=lambda occurrence: occurrence.order)

    async def runs(self, grant_ids: Sequence[UUID], *, before: UUID | None, limit: int) -> list[Run]:
        """Up to `limit` syncs, the latest first. Raises DatabaseUnavailable."""
        async with self._db.begin() as tx:
            return await store.runs_of(tx, grant_ids, before=before, limit=limit)


def _require_short(since: datetime, until: datetime) -> None:
    if until <= since:
        raise ValidationFailed(
            "There is no time between from and to.", fields={"query.to": "must be later than from"}
        )
    if until - since > LONGEST:
        days = LONGEST.days
        raise ValidationFailed(
            f"Events of {days} days at most are listed at once.",
            fields={"query.to": f"must be no more than {days} days after from; ask for the rest separately"},
        )


def _too_much() -> ValidationFailed:
    return ValidationFailed(
        "There are too many events in this time to list them at once.",
        fields={"query.to": "must be nearer to from, or name fewer calendars by calendar_id"},
    )
