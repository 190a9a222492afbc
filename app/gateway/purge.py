"""Answers forgotten because somebody says so: on record first, then gone here, and within moments everywhere."""

from __future__ import annotations

from app.audit import store as audit
from app.audit.event import AuditEvent
from app.clock import Clock
from app.db import Database
from app.gateway.answers import KeptAnswers
from app.gateway.meant import Meant


class Purger:
    """By hand."""

    def __init__(self, db: Database, answers: KeptAnswers, clock: Clock) -> None:
        self._db = db
        self._answers = answers
        self._clock = clock

    async def purge(self, meant: Meant, *, actor: str) -> int:
        """How many this replica had. May be repeated. Raises DatabaseUnavailable, and then nothing is forgotten."""
        details = {"account": meant.account, "path": meant.path}
        event = AuditEvent("cache.purged", actor, meant.provider, meant.user_id, details=details)
        async with self._db.begin() as tx:
            await audit.record(tx, event, now=self._clock.now())
        return await self._answers.forget(meant)
