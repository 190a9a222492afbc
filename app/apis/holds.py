"""Pauses that providers ask for with 429 and `Retry-After`: who is not asked before when, on every replica."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import UUID

from app.apis import rate_store
from app.apis.rate_store import Hold
from app.clock import Clock
from app.db import Database
from app.listener import API_HELD, Listener
from app.outages import DatabaseUnavailable

_MOST = 10_000
_LOOK_SECONDS = 10.0
_DIFFERENCE_SECONDS = 0.1  # between clocks, and ways
_FREED = "freed "  # before the provider's name

Scope = tuple[str, UUID]  # a registration, and a grant of it or NOBODY


class Holds:
    """What is stored is read when some were announced or may have been missed, and every 10 s."""

    def __init__(self, db: Database, listener: Listener, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._announced = listener.mailbox(API_HELD)
        self._until: dict[Scope, float] = {}
        self._unwritten: dict[Scope, float] = {}
        self._writing: set[asyncio.Task[None]] = set()
        self._storing = asyncio.Lock()  # else a reading might undo what is written at that moment

    def __bool__(self) -> bool:
        return bool(self._until)

    def until(self, provider: str, *grant_ids: UUID) -> float:
        """By the monotonic clock; 0 where none is known."""
        return max(self._until.get((provider, each), 0.0) for each in grant_ids)

    def hold(self, provider: str, grant_id: UUID, seconds: float) -> bool:
        """At this replica at once, at the others a moment later. Answers whether it is longer than what holds already."""
        scope, until = (provider, grant_id), self._clock.monotonic() + seconds
        if seconds <= 0 or until < self._until.get(scope, 0.0) + _DIFFERENCE_SECONDS:
            return False
        if len(self._until) >= _MOST:
            self._until.pop(min(self._until, key=self._until.__getitem__))
        self._until[scope] = self._unwritten[scope] = until
        writing = asyncio.create_task(self._write(Hold(provider, grant_id, seconds), until))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        return True

    async def free(self, provider: str) -> None:
        """Ends all pauses of the provider, on all replicas. Raises DatabaseUnavailable, and has done nothing then."""
        async with self._storing:
            async with self._db.begin() as tx:
                await rate_store.free(tx, provider)
            for known in (self._until, self._unwritten):
                for scope in [scope for scope in known if scope[0] == provider]:
                    del known[scope]
        with suppress(DatabaseUnavailable):
            await self._db.notify(API_HELD, _FREED + provider)

    async def load(self) -> set[str]:
        """Goes by what is stored. Answers of which providers something changed. Raises DatabaseUnavailable."""
        async with self._storing:
            async with self._db.begin() as tx:
                stored = await rate_store.held(tx, most=_MOST)
            known, now = self._until, self._clock.monotonic()
            self._until = {scope: until for scope, until in self._unwritten.items() if until > now}
            for hold in stored:
                scope, until = (hold.provider, hold.grant_id), now + hold.seconds
                before = known.get(scope, 0.0)
                same = before if abs(until - before) < _DIFFERENCE_SECONDS else until
                self._until[scope] = max(same, self._until.get(scope, 0.0))
        return {scope[0] for scope in known | self._until if known.get(scope) != self._until.get(scope)}

    async def heard(self) -> set[str]:
        """Until there is reason to load them. Answers of which providers an operator has ended them."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._announced.wait()
        payloads, _ = self._announced.take()
        return {payload.removeprefix(_FREED) for payload in payloads if payload.startswith(_FREED)}

    async def close(self) -> None:
        """What is not written yet is let go: who asks too early is told so again."""
        for writing in self._writing:
            writing.cancel()
        await asyncio.gather(*self._writing, return_exceptions=True)

    async def _write(self, hold: Hold, until: float) -> None:
        scope = (hold.provider, hold.grant_id)
        async with self._storing:
            if self._unwritten.get(scope) != until:
                return  # a longer one is written, or it was ended
            try:
                async with self._db.begin() as tx:
                    await rate_store.hold(tx, hold)
            except DatabaseUnavailable:
                return  # it holds here until PostgreSQL is back; who asks too early then is told so again
            finally:
                if self._unwritten.get(scope) == until:
                    del self._unwritten[scope]
        with suppress(DatabaseUnavailable):
            await self._db.notify(API_HELD, hold.provider)
