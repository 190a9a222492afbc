"""Grants that were read lately, so that a fetch costs no SQL; forgotten as soon as any replica changes them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from app.clock import Clock
from app.db import Database, Tx
from app.grants import known_store
from app.grants.grant import GrantKey, LeanGrant, not_found
from app.listener import GRANT_CHANGED, Listener, Mailbox
from app.outages import DatabaseUnavailable
from app.remembered import Fresh, Known, Remembered

TTL_SECONDS = 5.0
TTL_UNHEARD_SECONDS = 1.0  # while announcements may not arrive
SIZE = 100_000
CHANGES_KEPT = 20_000  # a minute of 300 a second; with more, what is older than they are is read anew


class KnownGrants:
    """Grants by key, at most 5 seconds old; up to a minute, marked stale, while PostgreSQL cannot be asked."""

    def __init__(self, db: Database, listener: Listener, clock: Clock) -> None:
        self._db = db
        self._listener = listener
        self._clock = clock
        self._changes = Changes(listener.mailbox(GRANT_CHANGED))
        self._was_listening, self._turns = False, 0
        self._grants: Remembered[GrantKey, LeanGrant] = Remembered(
            "grants",
            lambda keys: known_store.read_all(db.statements, keys),
            clock,
            size=SIZE,
            ttl_seconds=self._ttl_seconds,
            is_outdated=lambda grant, read_at: self._changes.since(grant.id, read_at),
        )

    def state(self) -> int:
        """A number that is another one as soon as anything that is known may have changed, or is good for less time."""
        self._changes.take(self._clock.monotonic())
        if self._listener.is_listening is not self._was_listening:
            self._was_listening = not self._was_listening
            self._turns += 1
        return self._turns + self._grants.turns + self._changes.number

    def peek(self, key: GrantKey) -> Fresh[LeanGrant] | None:
        """The grant, if it can be told without asking PostgreSQL. Who is answered by it tells so by `hit`."""
        self._changes.take(self._clock.monotonic())
        return self._grants.peek(key)

    def glance(self, key: GrantKey) -> Fresh[LeanGrant] | None:
        """The same, for one of many: nothing is read anew behind it."""
        self._changes.take(self._clock.monotonic())
        return self._grants.glance(key)

    def has(self, grant: LeanGrant) -> bool:
        """Whether this is what is known of it, as far as is heard; however old, and nothing is read for it."""
        self._changes.take(self._clock.monotonic())
        return self._grants.has(grant.key, grant)

    def hit(self, times: int) -> None:
        """So many were answered by what they had a peek at."""
        self._grants.hit(times)

    async def get(self, key: GrantKey) -> Known[LeanGrant]:
        """Raises GrantNotFound and DatabaseUnavailable."""
        self._changes.take(self._clock.monotonic())
        known = await self._grants.get(key)
        if known is None:
            raise not_found(key)
        return known

    async def read(self, key: GrantKey) -> LeanGrant:
        """As PostgreSQL has it now. Raises GrantNotFound and DatabaseUnavailable."""
        self._turns += 1
        known = await self._grants.read(key)
        if known is None:
            raise not_found(key)
        return known.value

    async def load(self, keys: Sequence[GrantKey]) -> set[GrantKey]:
        """Reads those that are not known, if they are several, by one statement; which of them are not there. Of others, and
        where that fails, nothing is said."""
        self._changes.take(self._clock.monotonic())
        return await self._grants.load(keys)

    def forget(self, key: GrantKey) -> None:
        """It is known here to have changed."""
        self._grants.drop(key)

    async def announce(self, tx: Tx, grant: LeanGrant) -> None:
        """Tells the others with the commit of `tx`; forget it here after that."""
        await self._db.announce(tx, GRANT_CHANGED, str(grant.id))

    async def changed(self, grant: LeanGrant) -> None:
        """Forgets it here at once and everywhere within moments. After the commit, so that who waits reads what was
        committed. A hint only: waiters poll as well, and what is remembered ends by itself."""
        self.forget(grant.key)
        with suppress(DatabaseUnavailable):
            await self._db.notify(GRANT_CHANGED, str(grant.id))

    async def close(self) -> None:
        await self._grants.close()

    def _ttl_seconds(self) -> float:
        return TTL_SECONDS if self._listener.is_listening else TTL_UNHEARD_SECONDS


class Changes:
    """Which grants changed lately, by what is announced. Of what was announced too long ago to be kept, only the time is."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self.number = 0  # of the times that there was something
        self._at: OrderedDict[UUID, float] = OrderedDict()
        self._all_until = -math.inf  # what was read before that may have changed, whatever it is

    def take(self, now: float) -> None:
        """Takes notice of what has been announced by now."""
        if not self._mailbox:
            return
        payloads, missed = self._mailbox.take()
        self.number += 1
        if missed:
            self._all_until = now
        for grant_id in map(UUID, payloads):
            self._at[grant_id] = now
            self._at.move_to_end(grant_id)
        while len(self._at) > CHANGES_KEPT:
            self._all_until = max(self._all_until, self._at.popitem(last=False)[1])

    def since(self, grant_id: UUID, time: float) -> bool:
        """Whether it may have changed since then: whoever began to read it later has seen it."""
        return time <= self._all_until or time <= self._at.get(grant_id, -math.inf)
