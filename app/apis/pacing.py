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
from app.oauth import parts
from app.oauth.client import OAuthClient
from app.outages import DatabaseUnavailable
from app.resilience import Rate
from app.telemetry import API_REFUSALS, API_WAIT_SECONDS, logger

log = logger(__name__)

_LIMITS = 10_000  # of registrations and grants, which are known here at once
SWEPT_EVERY = timedelta(minutes=10)
_SWEPT_AT_ONCE = 1_000
_AGAIN_SECONDS = 1.0

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
        """The provider wants no more calls for so many seconds: of the registration where the catalogue has limits of that
        alone, else of the grant. Others' replicas hear of it. A longer one that holds already stays."""
        api = client.provider.api
        scope = NOBODY if api.rate and not api.rate_per_grant else grant_id
        if (until := self._holds.hold(client.name, scope, seconds)) is not None:
            self._hold(client.name, scope, until)

    async def load(self) -> None:
        """Adopts the pauses that are stored. Raises DatabaseUnavailable."""
        for hold, until in await self._holds.load():
            self._hold(hold.provider, hold.grant_id, until)

    async def watch(self) -> None:
        """Adopts the pauses that other replicas were told, until it is cancelled."""
        while True:
            await self._holds.heard()
            try:
                await self.load()
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
        held_until = self._holds.until(provider, grant_id, NOBODY) if self._holds else 0.0
        if not api.is_limited:
            await self._after(held_until, within)
            return
        turns = self._turns_of(provider, api, grant_id)
        if held_until:
            turns.hold(held_until)
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
        return turns

    async def _reserved(
        self, provider: str, rates: Rates, waiting: int, pace: float, steady: float, late: float
    ) -> Reserved:
        return await self._reservations.reserved(
            provider, rates, waiting=waiting, pace=pace, steady=steady, late=late
        )

    def _hold(self, provider: str, scope: UUID, until: float) -> None:
        for (name, grant_id), (_, turns) in self._turns.items():
            if name == provider and scope in (NOBODY, grant_id):
                turns.hold(until)


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
