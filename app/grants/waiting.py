"""Waiting for a refresh that somebody else runs: notifications wake, and polling stands behind them."""

from __future__ import annotations

import asyncio
import random

from app.clock import Clock
from app.db import Database
from app.grants import store
from app.grants.grant import Grant, LeanGrant, Status, not_found
from app.listener import GRANT_CHANGED, Listener

_POLL_FIRST_SECONDS, _POLL_LAST_SECONDS = 0.05, 0.5


class Waiting:
    """Watches a grant until the claim on it has ended."""

    def __init__(self, db: Database, listener: Listener, clock: Clock) -> None:
        self._db = db
        self._listener = listener
        self._clock = clock

    async def until_claim_ends(self, grant: LeanGrant) -> Grant:
        """The grant as soon as its claim has ended, or may be taken over. Raises GrantNotFound once it is revoked."""
        # A claim that seems over here, but was refused by PostgreSQL, is over soon: our clock is a little ahead.
        seems_over = not grant.is_refreshing(self._clock.now())
        poll_seconds = _POLL_LAST_SECONDS if seems_over else _POLL_FIRST_SECONDS
        with self._listener.subscribe(GRANT_CHANGED, str(grant.id)) as changed:
            while True:
                current = await self._read(grant)
                if current.attempt_id is None or current.generation != grant.generation:
                    return current
                with_jitter = poll_seconds * random.uniform(0.5, 1)
                await _first_of(changed, with_jitter)
                changed.clear()
                poll_seconds = min(poll_seconds * 2, _POLL_LAST_SECONDS)
                if not current.is_refreshing(self._clock.now()):
                    return await self._read(grant)

    async def _read(self, grant: LeanGrant) -> Grant:
        async with self._db.begin() as tx:
            current = await store.find_by_id(tx, grant.id)
        if current is None or current.status is Status.REVOKED:
            raise not_found(grant.key)
        return current


async def _first_of(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
