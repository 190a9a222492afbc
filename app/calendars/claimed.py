"""`Claimed`: a calendar that is this replica's to sync for a while, and how far it has been synced. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from app.calendars.upstream import Window
from app.grants.grant import GrantKey
from app.vault.seal import Place

FULL_EVERY = timedelta(days=7)
SOON = timedelta(seconds=10)  # after the first of several notifications: the others belong to the same sync
_WINDOW_BACK, _WINDOW_AHEAD = timedelta(days=180), timedelta(days=545)


@dataclass(frozen=True, slots=True)
class Claimed:
    """Held by `owner` until its lease ends. Without a cursor the next sync is a baseline."""

    calendar_id: UUID
    owner: UUID
    grant_id: UUID
    key: GrantKey
    external_id: str
    name: str
    generation: int
    params_hash: bytes | None
    window: Window | None
    full_due_at: datetime | None
    failures: int
    sealed_cursor: bytes | None = field(repr=False)

    def wants_baseline(self, params_hash: bytes, now: datetime) -> bool:
        """Whether there is nothing to go on from, or it is time for a baseline all the same."""
        due = self.full_due_at is None or self.full_due_at <= now
        return self.sealed_cursor is None or self.params_hash != params_hash or due

    def place_of_cursor(self, generation: int) -> Place:
        return Place("calendar_sync_states", self.calendar_id, "cursor", generation)


def window_around(now: datetime) -> Window:
    """Half a year back and a year and a half ahead: what a baseline lists where it has to say from when until when."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return Window(today - _WINDOW_BACK, today + _WINDOW_AHEAD)
