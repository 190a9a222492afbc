"""Tokens of grants that are gone here end at their provider, too (RFC 7009), sooner or later.

keep        the token into `revocations`, sealed anew, in the transaction that erases it from `grants`
attempt     one try at the provider, after the commit and outside of any transaction
revoke_due  the tries that follow, by the timetable: 30 s later at first, each hour at last, for 7 days
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from datetime import timedelta
from enum import StrEnum
from uuid import UUID

from app.audit import store as audit
from app.audit.event import AuditEvent
from app.clock import Clock
from app.db import Database, Tx, insist
from app.drain import Drain
from app.errors import UnknownProvider, UpstreamError
from app.grants import candidate_store, revocation_store, store
from app.grants.grant import Grant, Status
from app.grants.revocation_store import Revocation
from app.grants.sealing import open_access_token, open_refresh_token, place_of_candidate
from app.ids import uuid7
from app.metrics import REVOCATIONS
from app.oauth.answers import TokenSet
from app.oauth.client import OAuthClient, OAuthClients
from app.oauth.endpoints import TokenEndpoints
from app.outages import DatabaseUnavailable
from app.telemetry import logger
from app.vault.seal import CannotOpen, Place
from app.vault.vault import Vault

log = logger(__name__)

KEPT_FOR = timedelta(days=7)
_AT_ONCE = 8
_ERASED_AT_ONCE = 1000
_KEEP_WITHIN = timedelta(seconds=5)
# Why a token was let go, by whether the provider revoked it; None: it has no way to.
_NOT_BECAUSE = {True: None, False: "refused", None: "no_way"}


class _Outcome(StrEnum):
    REVOKED = "revoked"
    REFUSED = "refused"  # for good: a request that was refused is refused again
    POSTPONED = "postponed"
    GIVEN_UP = "given_up"  # the token may live on at the provider


class Revoker:
    """Revokes tokens at their providers. Safe on any number of replicas."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        endpoints: TokenEndpoints,
        clients: OAuthClients,
        drain: Drain,
        clock: Clock,
    ) -> None:
        self._db = db
        self._vault = vault
        self._endpoints = endpoints
        self._clients = clients
        self._drain = drain
        self._clock = clock

    async def keep(self, tx: Tx, client: OAuthClient, grant: Grant) -> list[Revocation]:
        """Moves the grant's token, before it is erased, to where it waits to be revoked, and those of its candidates;
        none where that is no use: without a token, a registration or an endpoint. `attempt` them after the commit."""
        kept = [
            await self._keep(tx, client, grant, refresh_token=refresh_token, access_token=access_token)
            for refresh_token, access_token in (self._tokens(grant), *await self._of_candidates(tx, grant))
        ]
        return [revocation for revocation in kept if revocation is not None]

    async def discard(self, client: OAuthClient, grant: Grant, tokens: TokenSet) -> None:
        """Revokes tokens that a refresh brought for a grant that was revoked meanwhile; those of any other grant are
        dropped. Raises DatabaseUnavailable."""
        revocation = await insist(
            lambda: self._keep_of_revoked(client, grant.id, tokens), clock=self._clock, within=_KEEP_WITHIN
        )
        if revocation is not None:
            await self.attempt(client, revocation)

    async def attempt(self, client: OAuthClient, revocation: Revocation) -> bool | None:
        """Whether the provider revoked it now; None where it has no way to. May be repeated: of a token that is
        revoked already the provider says the same (RFC 7009 section 2.2)."""
        token = self._vault.open(revocation.sealed_token, _place(revocation.id))
        try:
            revoked = await self._endpoints.revoke(client, token=token, hint=revocation.token_type_hint)
        except UpstreamError as error:
            _tell(revocation, _Outcome.POSTPONED, provider_code=error.provider_code)
            return False
        if revoked is not None:
            _tell(revocation, _Outcome.REVOKED if revoked else _Outcome.REFUSED)
        with suppress(DatabaseUnavailable):  # then it is tried again, which is harmless
            await self._end(revocation, not_because=_NOT_BECAUSE[revoked])
        return revoked

    async def revoke_due(self) -> None:
        """Tries what is due, and erases what was tried for 7 days; replicas that do so at once share the work.

        Raises DatabaseUnavailable.
        """
        await self._give_up()
        while not self._drain.begun:
            async with self._db.begin() as tx:
                batch = await revocation_store.take_due(tx, limit=_AT_ONCE)
            if not batch:
                return
            await asyncio.gather(*map(self._retry, batch))

    async def _retry(self, revocation: Revocation) -> None:
        try:
            await self.attempt(self._clients.get(revocation.provider), revocation)
        except UnknownProvider:  # its catalogue entry was taken away, and may come back
            _tell(revocation, _Outcome.POSTPONED, provider_code="unknown_provider")
        except Exception:  # one token's trouble stops no other's revocation
            log.exception(
                "revocation.crashed", provider=revocation.provider, grant_id=str(revocation.grant_id)
            )

    async def _give_up(self) -> None:
        async with self._db.begin() as tx:
            given_up = await revocation_store.erase_older(tx, than=KEPT_FOR, limit=_ERASED_AT_ONCE)
            for revocation in given_up:
                await audit.record(tx, _event(revocation, not_because="given_up"), now=self._clock.now())
        for revocation in given_up:
            _tell(revocation, _Outcome.GIVEN_UP)

    async def _end(self, revocation: Revocation, *, not_because: str | None) -> None:
        async with self._db.begin() as tx:
            if await revocation_store.remove(tx, revocation.id):
                await audit.record(tx, _event(revocation, not_because=not_because), now=self._clock.now())

    async def _keep_of_revoked(
        self, client: OAuthClient, grant_id: UUID, tokens: TokenSet
    ) -> Revocation | None:
        async with self._db.begin() as tx:
            current = await store.find_by_id(tx, grant_id)
            if current is None or current.status is not Status.REVOKED:
                return None
            return await self._keep(
                tx, client, current, refresh_token=tokens.refresh_token, access_token=tokens.access_token
            )

    async def _keep(
        self,
        tx: Tx,
        client: OAuthClient,
        grant: Grant,
        *,
        refresh_token: str | None,
        access_token: str | None,
    ) -> Revocation | None:
        token = refresh_token or access_token  # the refresh token's end is that of the access tokens, too
        if token is None or not _may_have_a_way(client):
            return None
        row_id = uuid7(self._clock.now())
        revocation = Revocation(
            id=row_id,
            grant_id=grant.id,
            provider=grant.key.provider,
            user_id=grant.key.user_id,
            token_type_hint="refresh_token" if refresh_token else "access_token",
            sealed_token=self._vault.seal(token, _place(row_id)),
            attempts=1,
        )
        await revocation_store.add(tx, revocation)
        return revocation

    def _tokens(self, grant: Grant) -> tuple[str | None, str | None]:
        try:
            return open_refresh_token(self._vault, grant), open_access_token(self._vault, grant)
        except CannotOpen:  # it is erased all the same, and there is nothing to revoke by
            log.error("revocation.unreadable", provider=grant.key.provider, grant_id=str(grant.id))
            return None, None

    async def _of_candidates(self, tx: Tx, grant: Grant) -> list[tuple[str | None, str | None]]:
        """Their tokens, which are gone from where they were kept."""
        found = []
        for candidate in await candidate_store.take_all(tx, grant.id):
            with suppress(CannotOpen):
                text = self._vault.open(candidate.sealed_tokens, place_of_candidate(candidate.id))
                tokens = TokenSet(**json.loads(text))
                found.append((tokens.refresh_token, tokens.access_token))
        return found


def _place(row_id: UUID) -> Place:
    return Place("revocations", row_id, "token", 0)


def _may_have_a_way(client: OAuthClient) -> bool:
    """Of an issuer that has not been asked for its endpoints yet it is assumed."""
    provider = client.provider
    return client.client_id is not None and (provider.revocation_url is not None or provider.is_discovered)


def _event(revocation: Revocation, *, not_because: str | None) -> AuditEvent:
    reason = {} if not_because is None else {"reason": not_because}
    return AuditEvent(
        "grant.revoked_upstream" if not_because is None else "grant.not_revoked_upstream",
        provider=revocation.provider,
        user_id=revocation.user_id,
        grant_id=revocation.grant_id,
        details={"token_type": revocation.token_type_hint, "attempts": revocation.attempts, **reason},
    )


def _tell(revocation: Revocation, outcome: _Outcome, *, provider_code: str | None = None) -> None:
    """One metric and one line a try. What was not revoked may be somebody's access that lives on."""
    REVOCATIONS.labels(revocation.provider, outcome).inc()
    given_up = outcome is _Outcome.GIVEN_UP
    say = log.error if given_up else log.info if outcome is _Outcome.REVOKED else log.warning
    say(
        "revocation.given_up" if given_up else "revocation",
        provider=revocation.provider,
        grant_id=str(revocation.grant_id),
        user_id=revocation.user_id,
        outcome=outcome,
        attempts=revocation.attempts,
        provider_code=provider_code,
    )
