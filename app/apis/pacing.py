"""How often providers' APIs are asked: limits of the catalogue that all replicas keep together, and pauses that providers ask for.

    admit   no limit? go | a turn is here? go | wait for the next one, where it comes in time
    held    429 -> here at once -> row -> announced -> all replicas

Turns are reserved in PostgreSQL, by its clock, for all who wait here and some who come next (`app.apis.window`).
"""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from functools import partial
from uuid import UUID

from cachetools import LRUCache

from app.apis import rate_store
from app.apis.holds import Holds
from app.apis.rate_store import NOBODY
from app.apis.reserving import Rates, Reservations
from app.apis.turns import TooLong, Turns
from app.apis.window import Reserved
from app.clock import Clock
from app.db import Database
from app.errors import Category, ProviderUnavailable, Sent
from app.listener import Listener
from app.metrics import API_REFUSALS, API_WAIT_SECONDS
from app.oauth import parts
from app.oauth.client import OAuthClient
from app.outages import DatabaseUnavailable
from app.resilience import Rate
from app.telemetry import logger

log = logger(__name__)

_LIMITS = 10_000  # of registrations and grants, which are known here at once
SWEPT_EVERY = timedelta(minutes=10)
_SWEPT_AT_ONCE = 1_000
_AGAIN_SECONDS = 1.0
_ALL_HELD_SECONDS = (60, 300)  # at most: between these, the longest span of the limit
_HELD_SECONDS = 3_600  # at most, a grant

_Limits = tuple[tuple[parts.Rate, ...], tuple[parts.Rate, ...]]


class Pacer:
    """Keeps calls within what providers let us ask. What has no limit costs nothing."""

    def __init__(self, db: Database, listener: Listener, clock: Clock, *, replica: str) -> None:
        self._db = db
        self._clock = clock
        self._reservations = Reservations(db, clock, replica=replica)
        self._turns: LRUCache[tuple[str, UUID], tuple[_Limits, Turns]] = LRUCache(_LIMITS)
        self._holds = Holds(db, listener, clock)

    async def admit(self, client: OAuthClient, grant_id: UUID, *, within: float) -> None:
        """Waits until one more call may be made for the grant, at most `within` seconds; who came first goes first.

        Raises ProviderUnavailable with the seconds until there is a turn, at once where that is known to be later. May be
        cancelled: the turn is the next one's then.
        """
        api = client.provider.api
        if not (api.rate or api.rate_per_grant or self._holds):
            return
        since = self._clock.monotonic()
        try:
            await self._admitted(client.name, api, grant_id, within)
        except TooLong as late:
            API_REFUSALS.labels(client.name).inc()
            raise _unavailable(client, late.seconds) from None
        finally:
            if (waited := self._clock.monotonic() - since) > 0.001:
                API_WAIT_SECONDS.labels(client.name).inc(waited)

    def held(self, client: OAuthClient, grant_id: UUID, seconds: float) -> None:
        """The provider wants no more calls for so many seconds: of the grant, for an hour at most, and, where the catalogue
        has limits of the registration alone, of that, for five minutes at most: it may be that grant only. Other replicas hear
        of it. A longer one that holds already stays."""
        for scope, most in _held_at_most(client.provider.api, grant_id, seconds).items():
            if self._holds.hold(client.name, scope, min(seconds, most)):
                self._tell(client.name)

    async def free(self, provider: str) -> None:
        """Ends what it and its grants are held by, on all replicas. May be repeated. Raises DatabaseUnavailable."""
        await self._holds.free(provider)
        self._freed(provider)

    async def load(self) -> None:
        """Goes by the pauses that are stored. Raises DatabaseUnavailable."""
        for provider in await self._holds.load():
            self._tell(provider)

    async def watch(self) -> None:
        """Goes by the pauses that other replicas were told, until it is cancelled."""
        while True:
            freed = await self._holds.heard()
            try:
                await self.load()
                for provider in freed:
                    self._freed(provider)
            except DatabaseUnavailable:
                await self._clock.sleep(_AGAIN_SECONDS)
            except Exception:  # they have to be heard again once the fault is over
                log.exception("rates.holds_failed")
                await self._clock.sleep(_AGAIN_SECONDS)

    async def sweep(self) -> None:
        """Deletes what is stored of those who have long asked nothing. Raises DatabaseUnavailable."""
        swept = _SWEPT_AT_ONCE
        while swept == _SWEPT_AT_ONCE:
            async with self._db.begin() as tx:
                swept = await rate_store.sweep(tx, most=_SWEPT_AT_ONCE)

    async def close(self) -> None:
        """Who still waits is told to come back."""
        for _, turns in list(self._turns.values()):  # while they close, a call may come that needs others
            await turns.close()
        await self._reservations.close()
        await self._holds.close()

    async def _admitted(self, provider: str, api: parts.Api, grant_id: UUID, within: float) -> None:
        if self._holds and not api.rate_per_grant:  # else the line is the grant's own, and knows
            since, scopes = self._clock.monotonic(), (grant_id,) if api.rate else (grant_id, NOBODY)
            await self._after(self._holds.until(provider, *scopes), within)
            within = max(0.0, within - (self._clock.monotonic() - since))
        if not api.is_limited:
            return
        turns = self._turns_of(provider, api, grant_id)
        if not turns.take():
            await turns.wait(within)

    async def _after(self, held_until: float, within: float) -> None:
        wait = held_until - self._clock.monotonic()
        if wait > within:
            raise TooLong(wait)
        if wait > 0:
            await asyncio.sleep(wait)

    def _turns_of(self, provider: str, api: parts.Api, grant_id: UUID) -> Turns:
        key, limits = (provider, grant_id if api.rate_per_grant else NOBODY), (api.rate, api.rate_per_grant)
        kept = self._turns.get(key)
        if kept is not None and kept[0] == limits:
            return kept[1]
        rates = _rates(api, grant_id)
        every = [rate for each in rates.values() for rate in each]
        turns = Turns(every, partial(self._reserved, provider, rates), self._clock)
        self._turns[key] = limits, turns
        turns.hold(self._holds.until(*key, NOBODY))
        return turns

    async def _reserved(
        self, provider: str, rates: Rates, waiting: int, pace: float, steady: float, late: float
    ) -> Reserved:
        return await self._reservations.reserved(
            provider, rates, waiting=waiting, pace=pace, steady=steady, late=late
        )

    def _freed(self, provider: str) -> None:
        """Also where nothing was heard of the pause but, by a reservation, when there is another turn."""
        for (name, _), (_, turns) in self._turns.items():
            if name == provider:
                turns.free()
        self._tell(provider)

    def _tell(self, provider: str) -> None:
        for (name, grant_id), (_, turns) in self._turns.items():
            if name == provider:
                turns.hold(self._holds.until(provider, grant_id, NOBODY))


def _held_at_most(api: parts.Api, grant_id: UUID, seconds: float) -> dict[UUID, float]:
    """Who is held by that pause, and how many seconds of it."""
    if not api.rate or api.rate_per_grant:
        return {grant_id: _HELD_SECONDS}
    least, most = _ALL_HELD_SECONDS
    for_all = min(most, max(least, *(rate.per_seconds for rate in api.rate)))
    return {NOBODY: for_all} if seconds <= for_all else {NOBODY: for_all, grant_id: _HELD_SECONDS}


def _rates(api: parts.Api, grant_id: UUID) -> Rates:
    rates = {NOBODY: api.rate, grant_id: api.rate_per_grant}
    return {
        scope: [Rate(each.limit, each.per_seconds) for each in limits]
        for scope, limits in rates.items()
        if limits
    }


def _unavailable(client: OAuthClient, seconds: float) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"{client.title} takes no more requests at the moment. Your connection is kept; try again shortly.",
        provider=client.name,
        sent=Sent.NOT_SENT,
        category=Category.RATE_LIMIT,
        provider_code="rate_limited_here",
        retry_after=max(1, math.ceil(seconds)),
    )
