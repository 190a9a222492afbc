"""The answers that this replica keeps, and what makes it forget them: time, a write, a purge, the grant's end.

a write, a purge        here at once, then NOTIFY: every other replica within moments
nobody is heard         no answer is good for longer than a second, and none is left once somebody is heard again
the grant has changed   looked at by the next sweep; until then it is found by nobody, since its lineage is another one
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

from app.clock import Clock
from app.db import Database
from app.errors import GrantNotFound
from app.gateway.cache import Cache
from app.gateway.counts import Counts, Outcome
from app.gateway.kept import UNHEARD_SECONDS, Kept, Key
from app.gateway.meant import Meant, heard
from app.gateway.unsure import Unsure
from app.grants.grant import GrantKey, Status
from app.grants.known import KnownGrants
from app.listener import ANSWERS_FORGOTTEN, GRANT_CHANGED, Listener
from app.metrics import PROXY_CACHE_BYTES, PROXY_CACHE_ENTRIES
from app.oauth.resources import Segments, segments
from app.outages import DatabaseUnavailable

_TELL_SECONDS = 1.0  # for as long, a write's answer waits for the other replicas to be told


@dataclass(eq=False)
class Watch:
    """A GET that is under way. `is_outdated`: what it brings may have been another since; nobody who asks now may have it, and
    it is not kept. `is_unsure`: it may be another soon, and is not kept either."""

    grant_id: UUID
    of: GrantKey
    path: Segments
    begun_at: float
    is_unsure: bool = False
    is_outdated: bool = field(default=False, init=False)


class KeptAnswers:
    """Belongs to one event loop."""

    def __init__(
        self,
        db: Database,
        known: KnownGrants,
        listener: Listener,
        clock: Clock,
        *,
        most_bytes: int,
        replica: str,
    ) -> None:
        self._db = db
        self._known = known
        self._listener = listener
        self._clock = clock
        self._replica = replica
        self._cache = Cache(most_bytes=most_bytes)
        self._unsure = Unsure()
        self._watches: set[Watch] = set()
        self._forgotten = listener.mailbox(ANSWERS_FORGOTTEN)
        self._changes = listener.mailbox(GRANT_CHANGED)
        self._changed: set[str] = set()  # grants that are still to be looked at
        self.max_bytes = most_bytes
        self.counts = Counts()

    def __len__(self) -> int:
        return len(self._cache)

    @property
    def bytes(self) -> int:
        return self._cache.bytes

    @property
    def is_heard(self) -> bool:
        """Whether what other replicas forget is known here within moments."""
        return self._listener.is_listening

    def get(self, key: Key) -> Kept | None:
        """What is kept, good or not."""
        self.hear()
        return self._cache.get(key)

    def has(self, kept: Kept) -> bool:
        """Whether this very answer is kept. It is used herewith."""
        self.hear()
        return self._cache.get(kept.key) is kept

    def is_good(self, kept: Kept, *, seconds: float) -> bool:
        """Whether it may be answered as it is."""
        return kept.is_good(self._clock.monotonic(), seconds=seconds, is_heard=self.is_heard)

    def may_be_shared(self, watch: Watch) -> bool:
        """Whether what it brings is no older than who asks now may expect."""
        self.hear()
        if not self.is_heard and self._clock.monotonic() - watch.begun_at >= UNHEARD_SECONDS:
            return False
        return not watch.is_outdated

    def begin(self, grant_id: UUID, of: GrantKey, path: Segments) -> Watch:
        """A GET begins, which is told from now on that what it brings may have changed. To be ended by `end`."""
        self.hear()
        now = self._clock.monotonic()
        watch = Watch(grant_id, of, path, now, self._unsure.covers(grant_id, of, path, now))
        self._watches.add(watch)
        return watch

    def end(self, watch: Watch) -> None:
        self._watches.discard(watch)

    def keep(self, kept: Kept, watch: Watch) -> None:
        """Unless it may have changed since it was asked for."""
        self.hear()
        if watch.is_outdated or watch.is_unsure:
            return
        for gone in self._cache.put(kept):
            self.counts.add(gone.of.provider, Outcome.EVICTED)
        self._measure()

    def drop(self, kept: Kept) -> None:
        """The provider has answered something else since, which is not to be kept."""
        self._cache.drop(kept)
        self._measure()

    async def forget(self, meant: Meant) -> int:
        """Those that are meant, here and with that on all replicas that are heard; how many there were here. Where PostgreSQL
        takes its time, the others are told later."""
        gone = self._forget_here(meant)
        # Where that fails nobody is heard either, and the others go by that.
        with suppress(DatabaseUnavailable, TimeoutError):
            async with asyncio.timeout(_TELL_SECONDS):
                await self._db.notify(ANSWERS_FORGOTTEN, meant.told_by(self._replica))
        return gone

    def hear(self) -> None:
        """Takes notice of what other replicas have forgotten by now."""
        if not self._forgotten:
            return
        texts, missed = self._forgotten.take()
        if missed:
            self._forget_here(Meant())
        for by, meant in map(heard, texts):
            if by != self._replica:
                self._forget_here(meant)

    async def sweep(self) -> None:
        """Forgets what is of no use any more: whose time is over, or whose grant is gone or another. May be repeated."""
        self.hear()
        now = self._clock.monotonic()
        self._cache.forget_where(lambda kept: not kept.is_of_use(now))
        self._unsure.sweep(now)
        texts, _ = self._changes.take()  # where some were missed, everything was forgotten
        self._changed |= set(texts)
        for grant_id in [each for each in self._cache.grants() if str(each) in self._changed]:
            if not await self._look_at(grant_id):
                break
            self._changed.discard(str(grant_id))
        else:
            self._changed.clear()
        self._measure()

    def by_provider(self) -> dict[str, int]:
        """How many are kept of each that anything is known of."""
        kept = self._cache.by_provider()
        return {name: kept[name] for name in sorted({*kept, *self.counts.providers})}

    async def _look_at(self, grant_id: UUID) -> bool:
        """Forgets what the grant does not have any more; False where PostgreSQL cannot be asked."""
        kept = self._cache.of_grant(grant_id)
        if not kept:  # forgotten meanwhile
            return True
        try:
            known = await self._known.get(kept[0].of)
        except DatabaseUnavailable:
            return False
        except GrantNotFound:
            self._cache.forget(grant_id)
            return True
        grant = known.value
        lineage = grant.lineage_id if grant.id == grant_id and grant.status is Status.ACTIVE else None
        self._cache.forget_where(
            lambda each: each.key.grant_id == grant_id and each.key.lineage_id != lineage
        )
        return True

    def _forget_here(self, meant: Meant) -> int:
        if meant.is_unsure:
            self._unsure.add(meant, self._clock.monotonic())
        for watch in self._watches:
            if meant.covers(watch.grant_id, watch.of, watch.path):
                watch.is_outdated = True
        if meant.grant_id is not None:
            gone = self._cache.forget(UUID(meant.grant_id), segments(meant.path))
        else:
            gone = self._cache.forget_where(lambda each: meant.covers(each.key.grant_id, each.of, each.path))
        self._measure()
        return gone

    def _measure(self) -> None:
        PROXY_CACHE_BYTES.set(self._cache.bytes)
        PROXY_CACHE_ENTRIES.set(len(self._cache))
