"""Grants read without their tokens: one, a list, a history."""

from __future__ import annotations

from uuid import UUID

from app.db import Database
from app.errors import GrantNotFound
from app.grants import attempt_store, store
from app.grants.grant import Grant, Status
from app.grants.selection import Attempt, Selection


class GrantReader:
    """Looks, and changes nothing."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(self, grant_id: UUID) -> Grant:
        """Raises GrantNotFound for one that is absent or revoked."""
        async with self._db.begin() as tx:
            grant = await store.find_by_id(tx, grant_id)
        if grant is None or grant.status is Status.REVOKED:
            raise no_such_grant()
        return grant

    async def listed(self, wanted: Selection, *, after: UUID | None, limit: int) -> list[Grant]:
        """Up to `limit` grants in the order of their making."""
        async with self._db.begin() as tx:
            return await store.listed(tx, wanted, after=after, limit=limit)

    async def history(self, grant: Grant, *, before: UUID | None, limit: int) -> list[Attempt]:
        """Up to `limit` refresh attempts, the latest first."""
        async with self._db.begin() as tx:
            return await attempt_store.history(tx, grant.id, before=before, limit=limit)


def no_such_grant() -> GrantNotFound:
    """The one error for an id that is absent, and for one that the consumer may not see."""
    return GrantNotFound("There is no connection with this id.")
