"""The sealer: chains events that are committed already, so that no refresh waits for another's hash.

every second, on every replica:  look -> lock, if it is free -> chain what waits, in batches -> move the anchor on
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from uuid import UUID

from app.audit import chain_store
from app.audit.anchor import Anchor
from app.audit.chain import EMPTY, PURPOSE, Head, Link, Seal, chained
from app.audit.chain_store import Look
from app.clock import Clock
from app.db import Database, Tx
from app.ids import time_of
from app.telemetry import logger, security_event
from app.vault.vault import Vault

log = logger(__name__)

EVERY = timedelta(seconds=1)
BEHIND_SECONDS = 60.0
_AT_ONCE = 1000
_BATCHES = 20
_TELL_SECONDS = 60.0
_BEFORE_ALL = UUID(int=0)


class Sealer:
    """Safe on any number of replicas: one at a time chains, and the others see how far it is."""

    def __init__(self, db: Database, vault: Vault, anchor: Anchor, clock: Clock) -> None:
        self._db = db
        self._vault = vault
        self._anchor = anchor
        self._clock = clock
        self.head = EMPTY  # as of the last look
        self.is_anchored = True
        self._oldest_at: datetime | None = None
        self._looked_at = clock.monotonic()
        self._told_at = -_TELL_SECONDS
        self._anchored: Head | None = None

    @property
    def unchained_seconds(self) -> float:
        """The age of the oldest event that was not chained at the last look; 0 where there was none."""
        if self._oldest_at is None:
            return 0.0
        return max(0.0, (self._clock.now() - self._oldest_at).total_seconds())

    @property
    def behind_seconds(self) -> float:
        """The same, or how long nobody here could look."""
        return max(self.unchained_seconds, self._clock.monotonic() - self._looked_at)

    async def seal(self) -> None:
        """Chains what waits, up to a bound. Raises DatabaseUnavailable."""
        for _ in range(_BATCHES):
            if await self._seal_some() < _AT_ONCE:
                break
        if self.head != self._anchored:
            await self._move_anchor()
        self._tell()

    async def _seal_some(self) -> int:
        """How many were chained; 0 where another replica is at it."""
        async with self._db.begin() as tx:
            look = await chain_store.look(tx)
            links = await self._links(tx, look) if look.is_locked and look.oldest is not None else []
            if links:
                await chain_store.add(tx, links)
        self.head = _head_of(links) or look.head
        self._oldest_at = None if look.oldest is None or links else time_of(look.oldest)
        self._looked_at = self._clock.monotonic()
        return len(links)

    async def _links(self, tx: Tx, look: Look) -> list[Link]:
        # What was looked at was seen before the lock was ours: whoever had it may have gone on.
        head = await chain_store.head(tx) or look.head
        events = await chain_store.unchained(tx, after=_BEFORE_ALL, limit=_AT_ONCE)
        key_id, key = self._vault.derived_key(PURPOSE)
        sealed_at, links = self._clock.now(), []
        for event in events:
            seal = Seal(head.sequence + 1, key_id, sealed_at)
            head = Head(seal.sequence, chained(key, head.hash, seal, event))
            links.append(Link(seal, event.id, head.hash, event))
        return links

    async def _move_anchor(self) -> None:
        """To the present head, if that comes after what the anchor says."""
        try:
            kept = await asyncio.to_thread(self._anchor.read)
            head = await self._head_after(kept)
            if head is None:
                self._refuse(kept)
                return
            if not await asyncio.to_thread(self._anchor.move, head):
                return  # somebody else is at it: the next look sees whether it was done
        except (OSError, ValueError) as error:
            self.is_anchored = False
            log.error("audit.anchor_failed", detail=str(error))
            return
        self.is_anchored, self._anchored = True, head

    async def _head_after(self, kept: Head | None) -> Head | None:
        """The present head; None where what was kept does not lead to it."""
        async with self._db.begin() as tx:
            head = await chain_store.head(tx)
            beginning = await chain_store.beginning(tx)
            found = None if kept is None else await chain_store.hash_at(tx, kept.sequence)
            await self._db.await_standby(tx)  # what a failover may still take back is not told the file
        if head is None or beginning is None:
            return None
        if kept is None or kept.hash == found or kept in {head, beginning}:
            return head
        return head if kept.sequence < beginning.sequence else None

    def _refuse(self, kept: Head | None) -> None:
        if self.is_anchored:
            security_event("audit_chain_cut_or_replaced", head=str(self.head), anchor=str(kept))
        self.is_anchored = False

    def _tell(self) -> None:
        """For whoever keeps logs where the database's owner cannot reach them."""
        now = self._clock.monotonic()
        if now - self._told_at >= _TELL_SECONDS:
            self._told_at = now
            log.info("audit.head", sequence=self.head.sequence, hash=self.head.hash.hex())


def _head_of(links: list[Link]) -> Head | None:
    return Head(links[-1].seal.sequence, links[-1].hash) if links else None
