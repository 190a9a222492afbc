"""The audit trail, read."""

from __future__ import annotations

from uuid import UUID

from app.audit import store
from app.audit.event import Filter, RecordedEvent
from app.db import Database


class AuditReader:
    """Looks, and changes nothing."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def listed(self, wanted: Filter, *, before: UUID | None, limit: int) -> list[RecordedEvent]:
        """Up to `limit` events, the latest first."""
        async with self._db.begin() as tx:
            return await store.listed(tx, wanted, before=before, limit=limit)
