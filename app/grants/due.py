"""The proactive refresh: what comes due before the next tick, worked off by a lane for each provider.

    due_store.providers   which of those that can be asked have something due
    a lane, each          waits for a free place: its provider's (callers first), and one of its share of all there are
                          refreshes the next grant there, the soonest first; again, until nothing is left
                          takes half of its share in one statement whenever it has none left to begin with
    put back              what was taken and then could not be tried, which ends the lane for this time

So what is in memory, and what a crash leaves taken, is half as much again as is refreshed at once, however much is due.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.breaker import Breakers, BreakerState
from app.clock import Clock
from app.db import Database
from app.drain import Drain
from app.errors import BrokerError, Overloaded, ProviderUnavailable
from app.grants import due_store
from app.grants.grant import LeanGrant, Trigger
from app.grants.places import Places
from app.grants.refresh import Refresher
from app.grants.schedule import Tally
from app.grants.slots import Slots
from app.oauth.client import OAuthClient, OAuthClients
from app.oauth.endpoints import TokenEndpoints
from app.outages import DatabaseUnavailable
from app.telemetry import logger

log = logger(__name__)

_POSTPONE_BEYOND_CUTOFF = timedelta(minutes=2)
_SHORTEST = timedelta(seconds=1)  # that an interval can be


@dataclass
class _Lane:
    """One provider's part of a tick. `since`: what came due before that has been taken. `taken`: and not begun."""

    client: OAuthClient
    taken: deque[LeanGrant] = field(default_factory=deque)
    since: datetime | None = None
    stopped: bool = False

    @property
    def name(self) -> str:
        return self.client.name


@dataclass(frozen=True)
class _Tick:
    """`ends_at` is in monotonic seconds: what is not taken by then is left to the next tick."""

    started: datetime
    cutoff: datetime
    ends_at: float
    places: Places
    outcomes: Counter[str] = field(default_factory=Counter)
    outages: list[DatabaseUnavailable] = field(default_factory=list)

    @property
    def postpone_to(self) -> datetime:
        return self.cutoff + _POSTPONE_BEYOND_CUTOFF


class DueRefresher:
    """Refreshes what is due, once a run; replicas that do so at once share the work. Runs take turns."""

    def __init__(
        self,
        db: Database,
        clients: OAuthClients,
        breakers: Breakers,
        endpoints: TokenEndpoints,
        refresher: Refresher,
        slots: Slots,
        drain: Drain,
        clock: Clock,
        *,
        concurrency: int,
    ) -> None:
        self._db = db
        self._clients = clients
        self._breakers = breakers
        self._endpoints = endpoints
        self._refresher = refresher
        self._slots = slots
        self._drain = drain
        self._clock = clock
        self._concurrency = concurrency
        self._running = asyncio.Lock()

    async def run(self, *, within: timedelta) -> Tally:
        """Refreshes each grant that comes due `within` from now, for no longer than that: what is left then is still
        due.

        A provider that is left alone by its breaker, or is not registered, is left out, and its grants untouched.
        Raises DatabaseUnavailable.
        """
        async with self._running:
            started = self._clock.now()
            lanes = await self._lanes(cutoff=started + within)
            tick = _Tick(
                started,
                started + within,
                self._clock.monotonic() + max(within, _SHORTEST).total_seconds(),
                Places(self._concurrency, {lane.name: self._slots.size(lane.client) for lane in lanes}),
            )
            # Each comes to its end, whatever becomes of the others.
            ends = await asyncio.gather(
                *(self._work_off(lane, tick) for lane in lanes), return_exceptions=True
            )
            for error in (*ends, *tick.outages):
                if error is not None:
                    raise error
            return Tally(due=tick.outcomes.total(), **tick.outcomes)

    async def land(self) -> None:
        """Waits for the run under way while the drain lasts: it takes nothing any more, and what it had taken and not
        begun it puts back."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._drain.remaining_seconds()), self._running:
                pass

    async def _lanes(self, *, cutoff: datetime) -> list[_Lane]:
        """One for each provider that can be asked and has something due; none while this replica is leaving."""
        clients = {client.name: client for client in self._clients if self._is_askable(client)}
        if self._drain.begun or not clients:
            return []
        async with self._db.begin() as tx:
            return [
                _Lane(clients[name]) for name in await due_store.providers(tx, list(clients), cutoff=cutoff)
            ]

    def _is_askable(self, client: OAuthClient) -> bool:
        if client.client_id is None:
            return False
        return self._breakers.admits(client.token_breaker) and self._endpoints.may_ask(client)

    async def _work_off(self, lane: _Lane, tick: _Tick) -> None:
        """Takes and refreshes, until nothing is left, the time is over, or the provider cannot be asked any more."""
        try:
            async with asyncio.TaskGroup() as refreshes:
                while (grant := await self._next(lane, tick)) and await self._has_place(lane, tick):
                    lane.taken.popleft()
                    task = refreshes.create_task(self._refresh(grant, lane, tick))
                    if self._is_doubtful(lane):
                        await asyncio.wait([task])
                await self._put_back(lane.taken, tick)
        finally:
            tick.places.close(lane.name)

    async def _next(self, lane: _Lane, tick: _Tick) -> LeanGrant | None:
        """The first of those that were taken; None where there is none to take any more."""
        while not lane.taken and self._goes_on(lane) and self._clock.monotonic() < tick.ends_at:
            batch = await self._take(lane, tick)
            if not batch and lane.since is None:
                break
            # At the end once more from the beginning, for what others held for a moment.
            lane.since = batch[-1].next_refresh_at if batch else None
            lane.taken.extend(batch)
        return lane.taken[0] if lane.taken else None

    async def _has_place(self, lane: _Lane, tick: _Tick) -> bool:
        """Takes a place for one refresh, waited for; False where the lane has to end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(tick.ends_at - self._clock.monotonic()):
                await tick.places.wait(lane.name)
                await self._slots.room(lane.client)
                if self._goes_on(lane):
                    await tick.places.take(lane.name)
                    return True
        return False

    def _goes_on(self, lane: _Lane) -> bool:
        return not lane.stopped and not self._drain.begun and self._is_askable(lane.client)

    def _is_doubtful(self, lane: _Lane) -> bool:
        """Whether the next one to be asked shows how the provider is: its breaker lets no other through."""
        return self._breakers.of(lane.client.token_breaker).state is not BreakerState.CLOSED

    async def _take(self, lane: _Lane, tick: _Tick) -> Sequence[LeanGrant]:
        try:
            return await due_store.take(
                self._db.statements,
                lane.name,
                cutoff=tick.cutoff,
                tick_started=tick.started,
                since=lane.since,
                postpone_to=tick.postpone_to,
                limit=1 if self._is_doubtful(lane) else max(1, tick.places.share(lane.name) // 2),
            )
        except DatabaseUnavailable as error:  # what is under way goes on, and commits what it can
            tick.outages.append(error)
            lane.stopped = True
            return ()

    async def _refresh(self, grant: LeanGrant, lane: _Lane, tick: _Tick) -> None:
        try:
            await self._refresher.renewed(grant, Trigger.SCHEDULER)
            tick.outcomes["refreshed"] += 1
        except (ProviderUnavailable, Overloaded):
            tick.outcomes["postponed"] += 1
            if await self._put_back([grant], tick):
                lane.stopped = True  # what kept it from being tried would keep all others from it
        except BrokerError:
            tick.outcomes["failed"] += 1
        except Exception:  # one grant's trouble stops nobody else's refresh
            log.exception("refresh.crashed", grant_id=str(grant.id))
            tick.outcomes["failed"] += 1
        finally:
            tick.places.give_back(lane.name)

    async def _put_back(self, taken: Collection[LeanGrant], tick: _Tick) -> bool:
        """Whether any of them is due as it was, since nobody has tried it."""
        if not taken:
            return False
        with suppress(DatabaseUnavailable):  # then they come due again two minutes after the cut-off
            async with self._db.begin() as tx:
                return bool(await due_store.put_back(tx, taken, postponed_to=tick.postpone_to))
        return False
