"""When grants were last asked for."""

from __future__ import annotations

from uuid import UUID

from app.clock import Clock
from app.db import Database
from app.grants import store
from app.uses import Uses


def grant_uses(db: Database, clock: Clock) -> Uses[UUID]:
    """By the grant's id."""
    return Uses(db, clock, store.note_uses)
