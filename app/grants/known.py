"""Grants that were read lately, so that a fetch costs no SQL; forgotten as soon as any replica changes them."""

from __future__ import annotations

import math
from contextlib import suppress
from uuid import UUID

from cachetools import LRUCache

from app.clock import Clock
from app.db import Database, Tx
from app.grants import store
from app.grants.grant import Grant, GrantKey, not_found
from app.listener import GRANT_CHANGED, Listener
from app.outages import DatabaseUnavailable
from app.remembered import Known, Remembered

TTL_SECONDS = 5.0
TTL_UNHEARD_SECONDS = 1.0  # while announcements may not arrive
_SIZE = 20_000


class KnownGrants:
    """Grants by key, at most 5 seconds old; up to a minute, marked stale, while PostgreSQL cannot be asked."""

    def __init__(self, db: Database, listener: Listener, clock: Clock) -> None:
        self._db = db
        self._listener = listener
        self._changed = listener.mailbox(GRANT_CHANGED)
        self._clock = clock
        self._keys: LRUCache[UUID, GrantKey] = LRUCache(_SIZE)
        # When ids were announced that nobody here knew.
        self._unknown: LRUCache[UUID, float] = LRUCache(_SIZE)
        self._grants: Remembered[GrantKey, Grant] = Remembered(
            "grants", self._read, clock, size=_SIZE, ttl_seconds=self._ttl_seconds
        )

    async def get(self, key: GrantKey) -> Known[Grant]:
        """Raises GrantNotFound and DatabaseUnavailable."""
        if self._changed:
            self._forget_changed()
        known = await self._grants.get(key)
        if known is None:
            raise not_found(key)
        return known

    async def read(self, key: GrantKey) -> Grant:
        """As PostgreSQL has it now. Raises GrantNotFound and DatabaseUnavailable."""
        known = await self._grants.read(key)
        if known is None:
            raise not_found(key)
        return known.value

    def forget(self, key: GrantKey) -> None:
        """It is known here to have changed."""
        self._grants.drop(key)

    async def announce(self, tx: Tx, grant: Grant) -> None:
        """Tells the others with the commit of `tx`; forget it here after that."""
        await self._db.announce(tx, GRANT_CHANGED, str(grant.id))

    async def changed(self, grant: Grant) -> None:
        """Forgets it here at once and everywhere within moments. After the commit, so that who waits reads what was
        committed. A hint only: waiters poll as well, and what is remembered ends by itself."""
        self._grants.drop(grant.key)
        with suppress(DatabaseUnavailable):
            await self._db.notify(GRANT_CHANGED, str(grant.id))

    async def close(self) -> None:
        await self._grants.close()

    async def _read(self, key: GrantKey) -> Grant | None:
        began = self._clock.monotonic()
        grant = await store.read(self._db.statements, key)
        if grant is not None:
            self._keys[grant.id] = key
            self._forget_changed()
            if self._unknown.get(grant.id, -math.inf) >= began:
                self._grants.drop(key)  # announced before anybody here knew whose id that is
        return grant

    def _forget_changed(self) -> None:
        payloads, missed = self._changed.take()
        if missed:
            self._grants.clear()
        for grant_id in map(UUID, payloads):
            key = self._keys.get(grant_id)
            if key is None:
                self._unknown[grant_id] = self._clock.monotonic()
            else:
                self._grants.drop(key)

    def _ttl_seconds(self) -> float:
        return TTL_SECONDS if self._listener.is_listening else TTL_UNHEARD_SECONDS
