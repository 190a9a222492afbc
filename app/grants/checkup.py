"""Asks providers, a few questions at a time, whether tokens of which nothing was heard for long still work: a grant that
was withdrawn without a word is found before its user finds out.

    take_turns   one replica asks a provider at a time, and all together keep to the rate
    take_next    the grant of which nothing was heard for longest, once
    ask          introspection or userinfo, on no database connection
    settle       a denial is a hint only: whether the grant is dead is told by its refresh

No caller waits for any of it. A provider whose breaker is not closed, or that has an incident, is asked nothing.
"""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from enum import StrEnum

from app.audit import store as audit
from app.audit.event import AuditEvent
from app.breaker import Breakers, BreakerState
from app.clock import Clock
from app.db import Database
from app.drain import Drain
from app.errors import BrokerError, ReconnectRequired
from app.grants import validation_store
from app.grants.grant import Grant, Trigger
from app.grants.incidents import Incidents
from app.grants.known import KnownGrants
from app.grants.pace import Consequence, turn_at
from app.grants.refresh import Refresher
from app.grants.token import Need
from app.grants.validate import CheckedBy, Validator, can_tell
from app.metrics import VALIDATIONS
from app.oauth.client import OAuthClient, OAuthClients
from app.oauth.endpoints import TokenEndpoints
from app.telemetry import logger

log = logger(__name__)

_AT_ONCE = 4  # providers that are asked at the same time, each one question after the other
_SECOND_LOOK = timedelta(minutes=10)


class _Outcome(StrEnum):
    VALID = "valid"
    REVOKED = "revoked"  # denied, and dead: the user has to connect again
    RENEWED = "renewed"  # denied, but a refresh brought a new token
    UNSETTLED = "unsettled"  # denied, and that is all that is known
    UNANSWERED = "unanswered"


class Checkup:
    """Has every grant asked about that was heard nothing of for `every`, at most `per_minute` of one provider's.

    A refresh counts as having heard of it. Safe on any number of replicas, which share the rate.
    """

    def __init__(
        self,
        db: Database,
        validator: Validator,
        refresher: Refresher,
        known: KnownGrants,
        endpoints: TokenEndpoints,
        clients: OAuthClients,
        breakers: Breakers,
        incidents: Incidents,
        drain: Drain,
        clock: Clock,
        *,
        every: timedelta,
        per_minute: int,
    ) -> None:
        self._db = db
        self._validator = validator
        self._refresher = refresher
        self._known = known
        self._endpoints = endpoints
        self._clients = clients
        self._breakers = breakers
        self._incidents = incidents
        self._drain = drain
        self._clock = clock
        self._every = every
        self._turn = turn_at(per_minute)

    async def validate_due(self) -> None:
        """Asks each provider whose turn it is. Raises DatabaseUnavailable."""
        clients = {client.name: client for client in self._clients if self._may_ask(client)}
        if not clients:
            return
        rest = self._turn.rest * random.uniform(0.9, 1.1)
        async with self._db.begin() as tx:
            turns = await validation_store.take_turns(tx, sorted(clients), rest=rest)
        places = asyncio.Semaphore(_AT_ONCE)
        await asyncio.gather(*(self._take_turn(clients[name], places) for name in turns))

    def _may_ask(self, client: OAuthClient) -> bool:
        """Whether there may be something to ask, of somebody who is not being left alone."""
        if client.client_id is None or not (client.provider.is_discovered or can_tell(client)):
            return False
        if client.name in self._incidents.open:
            return False
        closed = self._breakers.of(client.token_breaker).state is BreakerState.CLOSED
        return closed and self._endpoints.may_ask(client)

    async def _take_turn(self, client: OAuthClient, places: asyncio.Semaphore) -> None:
        async with places:
            try:
                await self._ask_some(await self._endpoints.completed(client))
            except BrokerError as error:  # the issuer or PostgreSQL is away; others have their turn
                log.warning("validation.postponed", provider=client.name, detail=error.detail)
            except Exception:  # one grant's trouble stops nobody else's question
                log.exception("validation.crashed", provider=client.name)

    async def _ask_some(self, client: OAuthClient) -> None:
        if not can_tell(client):
            return
        for _ in range(self._turn.questions):
            if self._drain.begun or not await self._ask_next(client):
                return

    async def _ask_next(self, client: OAuthClient) -> bool:
        """Asks about one grant; whether to go on with another one."""
        async with self._db.begin() as tx:
            unheard_since = self._clock.now() - self._every
            grant = await validation_store.take_next(tx, client.name, unheard_since=unheard_since)
        if grant is None:
            return False
        valid, checked_by = await self._validator.ask(client, grant)
        follows = await self._note(grant, valid, checked_by)
        if valid is None:
            outcome = _Outcome.UNANSWERED
        elif valid:
            outcome = _Outcome.VALID
        else:
            outcome = await self._settle(grant, checked_by) if follows.is_believed else _Outcome.UNSETTLED
        _tell(grant, checked_by, outcome)
        return follows.rest is None

    async def _note(self, grant: Grant, valid: bool | None, checked_by: CheckedBy) -> Consequence:
        """Writes the answer down, and what follows from it for the provider."""
        provider = grant.key.provider
        async with self._db.begin() as tx:
            follows = (await validation_store.standing(tx, provider)).after(valid)
            await validation_store.stand(tx, provider, follows.standing, rest=follows.rest)
            if valid:
                await validation_store.note_valid(tx, grant)
            elif valid is False:
                event = _event("grant.token_denied", grant, checked_by=checked_by)
                await audit.record(tx, event, now=self._clock.now())
        if follows.rest is not None and not follows.is_believed:
            why = "it does not tell" if valid is None else "it denies too many tokens to be believed"
            seconds = round(follows.rest.total_seconds())
            log.warning("validation.provider_left_alone", provider=provider, seconds=seconds, why=why)
        return follows

    async def _settle(self, grant: Grant, checked_by: CheckedBy) -> _Outcome:
        """What a denial is worth."""
        if grant.refresh_fingerprint is None:
            # Only the authorization server's own word ends what cannot be put to the test (RFC 7662 section 2.2); a
            # resource server may refuse a token for its scope, say.
            known_surely = checked_by is CheckedBy.INTROSPECTION and await self._denied_twice(grant)
            return _Outcome.REVOKED if known_surely else _Outcome.UNSETTLED
        need = Need(newer_than=grant.generation, or_present=False)
        try:
            await self._refresher.fresh(grant.key, need, trigger=Trigger.SCHEDULER)
        except ReconnectRequired:
            await self._bear_out(grant.key.provider)
            return _Outcome.REVOKED
        except BrokerError:  # on record as a refresh that failed, and tried again as such
            return _Outcome.UNSETTLED
        return _Outcome.RENEWED

    async def _denied_twice(self, grant: Grant) -> bool:
        """Ends a grant without a refresh token at the second denial in a row, some minutes after the first."""
        now = self._clock.now()
        async with self._db.begin() as tx:
            if not await validation_store.was_denied(tx, grant):
                soon = now - self._every + _SECOND_LOOK
                await validation_store.note_denied(tx, grant, unasked_since=soon)
                return False
            if not await validation_store.end(tx, grant, reason="no_refresh_token"):
                return False
            event = _event("grant.reconnect_required", grant, reason="no_refresh_token")
            await audit.record(tx, event, now=now)
        await self._known.changed(grant)
        return True

    async def _bear_out(self, provider: str) -> None:
        async with self._db.begin() as tx:
            standing = await validation_store.standing(tx, provider)
            await validation_store.stand(tx, provider, standing.borne_out())


def _event(action: str, grant: Grant, **details: str) -> AuditEvent:
    return AuditEvent(
        action,
        provider=grant.key.provider,
        user_id=grant.key.user_id,
        grant_id=grant.id,
        details={"generation": grant.generation, **details},
    )


def _tell(grant: Grant, checked_by: CheckedBy, outcome: _Outcome) -> None:
    """One metric and one line a question; those that are as they should be only at DEBUG."""
    VALIDATIONS.labels(grant.key.provider, outcome).inc()
    say = log.debug if outcome is _Outcome.VALID else log.info
    say(
        "validation",
        provider=grant.key.provider,
        grant_id=str(grant.id),
        user_id=grant.key.user_id,
        generation=grant.generation,
        checked_by=checked_by,
        outcome=outcome,
    )
