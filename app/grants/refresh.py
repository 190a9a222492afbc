"""Keeps grants fresh. Requests and the scheduler come together in `_flight`, so there is one place to reason about it.

fresh -> will the present token do?     answer it; inside the margin, refresh behind the answer
      -> in flight in this process?     await that flight, shielded from the caller's hang-up
      -> protocol.attempt               the claim is ours: T1, token endpoint, T2
      -> or wait for who holds it       LISTEN, and polling behind it
      -> it failed                      a token that is still valid is answered all the same, marked degraded
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from app.clock import Clock
from app.db import Database
from app.drain import Drain
from app.errors import (
    BrokerError,
    RateLimited,
    RefreshTimeout,
)
from app.grants import attempt_store
from app.grants.answer import Answers
from app.grants.flights import Flights
from app.grants.grant import GrantKey, LeanGrant, Trigger
from app.grants.known import KnownGrants
from app.grants.protocol import RefreshProtocol
from app.grants.queue import Queue
from app.grants.token import Degraded, Need, Token, at_hand
from app.grants.waiting import Waiting
from app.outages import DatabaseUnavailable
from app.remembered import Known

DEFAULT_WAIT = timedelta(seconds=30)
FORCED_EVERY = timedelta(seconds=10)


class Refresher:
    """Answers tokens that are good for what the caller needs, and refreshes each expired one once."""

    def __init__(
        self,
        db: Database,
        known: KnownGrants,
        answers: Answers,
        protocol: RefreshProtocol,
        waiting: Waiting,
        drain: Drain,
        queue: Queue,
        clock: Clock,
    ) -> None:
        self._db = db
        self._known = known
        self._answers = answers
        self._protocol = protocol
        self._waiting = waiting
        self._clock = clock
        self._drain = drain
        self._flights = Flights(drain)
        self._queue = queue

    async def fresh(
        self,
        key: GrantKey,
        need: Need,
        *,
        scope: str = "",
        wait: timedelta = DEFAULT_WAIT,
        trigger: Trigger = Trigger.REQUEST,
    ) -> Token:
        """A token that meets `need`, refreshed if it has to be, within `wait`.

        Raises GrantNotFound, InsufficientScope, ReconnectRequired, UpstreamError, RefreshTimeout, Overloaded. The
        refresh itself goes on when the caller hangs up or runs out of time.
        """
        known = await self._known.get(key)
        is_awaited = self._flights.under_way((known.value.id, known.value.generation))
        if known.read_now or is_awaited or need.is_met_by(known.value, self._clock.now()):
            return await self._fresh_of(known, need, scope, wait, trigger)
        try:
            grant = await self._known.read(key)  # what is remembered will not do; what is stored may
        except DatabaseUnavailable as error:
            return self._answers.in_spite_of(error, known.value, need)
        return await self._fresh_of(Known(grant), need, scope, wait, trigger)

    def at_hand(self, grant: LeanGrant, need: Need, *, scope: str) -> Token | None:
        """The grant's token, if it is good for that without anything being done behind it.

        Raises InsufficientScope, and what `Answers.token` raises.
        """
        grant.require_scope(scope)
        return self._answers.token(grant, need) if at_hand(grant, need, self._clock.now()) else None

    async def force(self, key: GrantKey, *, generation: int | None, wait: timedelta = DEFAULT_WAIT) -> Token:
        """A token newer than the one of `generation`, which a resource server refused; another than the present one
        is answered as it is. Without a `generation` the token is always refreshed.

        Raises what `fresh` raises and, without a `generation`, RateLimited where less than 10 s have passed since the
        last forced refresh.
        """
        grant = await self._known.read(key)
        if generation is None:
            await self._require_rest(grant)
            return await self.fresh(key, Need(newer_than=grant.generation), wait=wait, trigger=Trigger.FORCED)
        if generation != grant.generation and not grant.is_half_answered:
            return await self.fresh(key, Need(), wait=wait)
        # The token was refused, so answering it again helps nobody.
        need = Need(newer_than=grant.generation, or_present=False)
        return await self.fresh(key, need, wait=wait, trigger=Trigger.FORCED)

    async def renewed(self, grant: LeanGrant, trigger: Trigger) -> LeanGrant:
        """A later generation of `grant`, which has just been read, however long that takes. The refresh goes on when
        who waits for it is cancelled.

        Raises ReconnectRequired, UpstreamError, and Overloaded while this replica is leaving.
        """
        grant.require_refreshable()
        return await asyncio.shield(self._flight(grant, trigger))

    async def close(self) -> None:
        """Ends the reads that still wait for PostgreSQL."""
        await self._known.close()

    async def land(self) -> int:
        """Waits for the refreshes under way while the drain lasts; how many were still running then."""
        return await self._flights.land()

    async def _fresh_of(
        self, known: Known[LeanGrant], need: Need, scope: str, wait: timedelta, trigger: Trigger
    ) -> Token:
        grant, now = known.value, self._clock.now()
        grant.require_scope(scope)
        if need.is_met_by(grant, now):
            if known.is_stale:
                return self._answers.token(grant, need, degraded=Degraded.DATABASE_UNAVAILABLE)
            if grant.is_held(now):
                return self._answers.token(grant, need, degraded=Degraded.OUTCOME_UNKNOWN)
            if grant.is_due(now) and not self._drain.begun:
                self._flight(grant, Trigger.AHEAD)
            return self._answers.token(grant, need)
        try:
            newer = await self._refreshed(grant, trigger, wait)
        except BrokerError as error:
            error.about(provider=grant.key.provider, user_id=grant.key.user_id, grant_id=grant.id)
            return self._answers.in_spite_of(error, grant, need)
        return self._answers.token(newer, need, refreshed=True)

    async def _require_rest(self, grant: LeanGrant) -> None:
        async with self._db.begin() as tx:
            seconds = await attempt_store.seconds_since_forced(tx, grant.id, within=FORCED_EVERY)
        rest = FORCED_EVERY.total_seconds() - seconds if seconds is not None else 0
        if rest > 0:
            raise RateLimited(
                "This connection was renewed on demand a moment ago; once every 10 seconds is the limit.",
                provider=grant.key.provider,
                user_id=grant.key.user_id,
                grant_id=grant.id,
                retry_after=max(1, round(rest)),
            )

    async def _refreshed(self, grant: LeanGrant, trigger: Trigger, wait: timedelta) -> LeanGrant:
        grant.require_refreshable()
        if grant.is_held(now := self._clock.now()):
            raise grant.held_back(now)
        if grant.is_doubted(now):
            raise grant.doubted(now)
        with self._queue.place(grant.id):
            flight = self._flight(grant, trigger)
            try:
                async with asyncio.timeout(wait.total_seconds()):
                    return await asyncio.shield(flight)
            except TimeoutError:
                raise RefreshTimeout(
                    f"Renewing the access to {grant.key.provider} takes longer than you wanted to wait. It goes on.",
                    provider=grant.key.provider,
                    user_id=grant.key.user_id,
                    grant_id=grant.id,
                    retry_after=1,
                ) from None

    def _flight(self, grant: LeanGrant, trigger: Trigger) -> asyncio.Task[LeanGrant]:
        """This process's one refresh of that generation."""
        return self._flights.join((grant.id, grant.generation), lambda: self._fly(grant, trigger))

    async def _fly(self, grant: LeanGrant, trigger: Trigger) -> LeanGrant:
        """A later generation of `grant`, made by us or by whoever holds its claim."""
        present = grant
        while True:
            newer = await self._protocol.attempt(present, trigger)
            if newer is not None:
                return newer
            before, present = present, await self._waiting.until_claim_ends(present)
            self._known.forget(present.key)  # whoever asks next sees what this caller is told
            now = self._clock.now()
            if (
                present.generation > before.generation
                and present.is_valid(now)
                and not present.is_half_answered
            ):
                return present
            present.require_refreshable()
            if present.is_held(now):
                raise present.held_back(now)
            if present.attempt_id is None and present.failed_since(before):
                raise present.last_failure()  # its holder has just tried, and said why not
