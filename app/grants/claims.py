"""Claims: won before a refresh token is sent, renewed before it is sent again, given back where nothing was."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from app.clock import Clock
from app.db import Database, insist
from app.grants import claim_store
from app.grants.claim import Claim, Term
from app.grants.grant import LeanGrant, Trigger
from app.ids import uuid7
from app.oauth.client import OAuthClient
from app.outages import DatabaseUnavailable

_AT_ONCE_SECONDS = 0.5


@dataclass(frozen=True)
class Limits:
    """How long each part may take. `lease_ttl` is longer than all the others together."""

    lease_ttl: timedelta
    send_window: timedelta
    hold_at_least: timedelta


class Claims:
    """This replica's. Whether one is won is PostgreSQL's word, by its clock."""

    def __init__(self, db: Database, clock: Clock, *, replica: str, limits: Limits) -> None:
        self._db = db
        self._clock = clock
        self._replica = replica
        self._limits = limits
        self._giving_back: set[asyncio.Task[None]] = set()

    def may_send(self, claim: Claim) -> bool:
        """Whether it is young enough that nobody takes over before the answer is stored."""
        return self._clock.monotonic() - claim.claimed_at <= self._limits.send_window.total_seconds()

    async def win(
        self, client: OAuthClient, grant: LeanGrant, trigger: Trigger, *, may_take_over: bool
    ) -> Claim | None:
        """T1; None where somebody else has it, or the grant has changed. Raises DatabaseUnavailable."""
        claimed_at, attempt_id = self._clock.monotonic(), uuid7(self._clock.now())
        try:
            return await claim_store.claim(
                self._db.statements,
                grant,
                attempt_id=attempt_id,
                trigger=trigger,
                replica=self._replica,
                term=self._term(client),
                claimed_at=claimed_at,
                may_take_over=may_take_over,
            )
        except DatabaseUnavailable:
            await self.give_back(grant.id, attempt_id)  # it may have been won, and only the answer be lost
            raise

    async def renew(self, client: OAuthClient, claim: Claim, *, is_unspent: bool) -> Claim | None:
        """A new claim in its place, so that nobody takes over what is about to be sent; None where somebody has.

        Raises DatabaseUnavailable; where the refresh token is known to be unspent the claim is given back then.
        """
        claimed_at, attempt_id = self._clock.monotonic(), uuid7(self._clock.now())
        try:
            return await claim_store.renew_claim(
                self._db.statements,
                claim,
                attempt_id=attempt_id,
                term=self._term(client),
                claimed_at=claimed_at,
            )
        except DatabaseUnavailable:
            if is_unspent:
                await self.give_back(claim.grant.id, claim.attempt_id, attempt_id)
            raise

    async def give_back(self, grant_id: UUID, *attempt_ids: UUID) -> None:
        """The grant is anybody's again: nothing was sent under these claims, or nothing that took effect. Behind our back
        where PostgreSQL is away; a claim that is not given back ends by itself."""

        async def release() -> None:
            async with self._db.begin() as tx:
                for attempt_id in attempt_ids:
                    await claim_store.release(tx, grant_id, attempt_id)

        task = asyncio.create_task(self._insist_on(release))
        self._giving_back.add(task)
        task.add_done_callback(self._giving_back.discard)
        await asyncio.wait({task}, timeout=_AT_ONCE_SECONDS)

    async def close(self) -> None:
        for task in self._giving_back:
            task.cancel()
        await asyncio.gather(*self._giving_back, return_exceptions=True)

    async def _insist_on(self, release: Callable[[], Awaitable[None]]) -> None:
        with suppress(DatabaseUnavailable):
            await insist(release, clock=self._clock, within=self._limits.lease_ttl)

    def _term(self, client: OAuthClient) -> Term:
        hold = self._limits.hold_at_least if client.provider.is_strict else None
        return Term(self._limits.lease_ttl, hold)
