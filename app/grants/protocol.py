"""One refresh, so that no grant is lost by it: two short transactions around a call that holds no connection.

    T1 claim    a lease on this generation: at most one holder
    send        within 5 s of the claim; tried again only where that cannot spend the refresh token twice
    journal     the answer, before it is committed: a crash in between loses nothing
    T2 commit   the new token set by compare-and-swap on the lineage; repeated until PostgreSQL has it

`Refresher` decides when to refresh and who waits; this module only how.
"""

from __future__ import annotations

from app.breaker import BreakerKey, Breakers
from app.clock import Clock
from app.drain import Drain
from app.errors import GrantRefused, Sent, UpstreamError
from app.grants.attempt import Run, as_recorded, is_other
from app.grants.candidates import Candidates
from app.grants.claims import Claims
from app.grants.grant import Grant, LeanGrant, Trigger
from app.grants.ledger import Ledger
from app.grants.revoke import Revoker
from app.grants.safekeeping import Safekeeping
from app.grants.sealing import open_refresh_token, unreadable
from app.grants.slots import Slots
from app.oauth.answers import TokenSet, TokensIncomplete
from app.oauth.client import OAuthClients
from app.oauth.endpoints import TokenEndpoints
from app.outages import DatabaseUnavailable
from app.resilience import Backoff
from app.telemetry import logger
from app.vault.seal import CannotOpen
from app.vault.vault import Vault

log = logger(__name__)


class _Superseded(Exception):
    """Somebody else claimed or changed the grant: what is stored now counts."""


class RefreshProtocol:
    """Refreshes one generation of one grant. Safe on any number of replicas."""

    def __init__(
        self,
        vault: Vault,
        endpoints: TokenEndpoints,
        clients: OAuthClients,
        breakers: Breakers,
        claims: Claims,
        ledger: Ledger,
        candidates: Candidates,
        safekeeping: Safekeeping,
        slots: Slots,
        revoker: Revoker,
        drain: Drain,
        clock: Clock,
        *,
        backoff: Backoff,
    ) -> None:
        self._vault = vault
        self._endpoints = endpoints
        self._clients = clients
        self._breakers = breakers
        self._claims = claims
        self._ledger = ledger
        self._candidates = candidates
        self._safekeeping = safekeeping
        self._slots = slots
        self._revoker = revoker
        self._drain = drain
        self._clock = clock
        self._backoff = backoff

    async def attempt(self, grant: LeanGrant, trigger: Trigger) -> Grant | None:
        """The grant with its next generation; None where somebody else claimed or changed it, so read it again.

        Raises ReconnectRequired where the provider calls the grant dead, and UpstreamError; both are recorded.
        """
        client = self._clients.get(grant.key.provider)
        client.require_registration()
        breaker = client.token_breaker
        self._breakers.check(breaker)
        client = await self._endpoints.completed(client)  # before the claim: it may take its time
        async with self._slots.of(client, urgent=trigger is not Trigger.SCHEDULER):
            await self._safekeeping.require(client)
            if await self._safekeeping.settle_own(grant.id):
                return None
            may_take_over = self._safekeeping.may_take_over(client, grant)
            claim = await self._claims.win(client, grant, trigger, may_take_over=may_take_over)
            return None if claim is None else await self._use(Run(client, claim), breaker)

    async def _use(self, run: Run, breaker: BreakerKey) -> Grant | None:
        try:
            refresh_token = await self._refresh_token(run)
            return (
                None
                if await self._candidates.adopt(run)
                else await self._refresh(run, breaker, refresh_token)
            )
        except DatabaseUnavailable:
            if not run.is_open and not run.may_be_spent:  # nothing was sent, or the answer to it is known
                await self._claims.give_back(run.claim.grant.id, run.claim.attempt_id)
            raise

    async def _refresh_token(self, run: Run) -> str:
        """The one that was claimed. Where it does not open the claim is given back, and BrokerError raised."""
        grant = run.claim.grant
        try:
            return open_refresh_token(self._vault, grant) or ""
        except CannotOpen as error:
            await self._claims.give_back(grant.id, run.claim.attempt_id)
            raise unreadable(grant, error) from error

    async def _refresh(self, run: Run, breaker: BreakerKey, refresh_token: str) -> Grant | None:
        try:
            with self._breakers.operation(breaker) as run.is_probe:
                tokens = await self._spend(run, refresh_token)
        except _Superseded:
            return None
        except TokensIncomplete as error:
            if not is_other(error.rest.refresh_token, run.claim.grant):
                await self._failed(run, error)
                return None
            run.flaw = as_recorded(error, self._clock.now())
            await self._settle(run, error.rest)
            raise
        except UpstreamError as error:
            if not (isinstance(error, GrantRefused) and await self._candidates.adopt_last(run)):
                await self._failed(run, error)
            return None
        return await self._settle(run, tokens)

    async def _settle(self, run: Run, tokens: TokenSet) -> Grant | None:
        """Journal and T2."""
        await self._safekeeping.keep(run, tokens)
        renewed = await self._ledger.commit(run, tokens)
        if renewed is None:
            await self._discard(run, tokens)
        self._safekeeping.done(run)  # where PostgreSQL could not be asked it is not, and is tried again
        return renewed

    async def _spend(self, run: Run, refresh_token: str) -> TokenSet:
        """Sends the refresh token, and again where that is harmless. Raises UpstreamError or _Superseded."""
        while True:
            if not self._claims.may_send(run.claim):
                await self._renew(run)
            run.tries, run.is_open = run.tries + 1, True
            run.sent_at = self._clock.monotonic()
            try:
                return await self._endpoints.refresh(run.client, refresh_token=refresh_token)
            except UpstreamError as error:
                run.is_open = error.sent is Sent.UNKNOWN or isinstance(error, TokensIncomplete)
                delay = self._delay(run, error)
                if delay is None:
                    raise
                run.may_be_spent |= error.sent is Sent.UNKNOWN
                await self._ledger.record_try(run, error)
                await self._clock.sleep(delay)
                await self._renew(run)

    def _delay(self, run: Run, error: UpstreamError) -> float | None:
        """Seconds until the next try; None where there must be none."""
        if self._drain.begun or run.is_probe or not error.retryable or isinstance(error, TokensIncomplete):
            return None
        if error.sent is Sent.UNKNOWN and run.client.provider.is_strict:
            return None  # a token that may be spent is not sent again: reuse would revoke its family
        return self._backoff.delay(run.tries, retry_after=error.retry_after)

    async def _renew(self, run: Run) -> None:
        claim = await self._claims.renew(run.client, run.claim, is_unspent=not run.may_be_spent)
        if claim is None:
            raise _Superseded
        run.claim = claim

    async def _failed(self, run: Run, error: UpstreamError) -> None:
        if run.tries:
            await self._ledger.fail(run, error)
            return
        # The breaker's one probe went to somebody else: nothing was sent.
        await self._claims.give_back(run.claim.grant.id, run.claim.attempt_id)
        raise error

    async def _discard(self, run: Run, tokens: TokenSet) -> None:
        """The grant was revoked, or given another lineage, while its refresh was under way.

        Of a revoked grant nothing may stay alive at the provider. Tokens that a competing refresh of the same lineage
        replaced are kept as a candidate, or dropped.
        """
        log.warning("refresh.superseded", grant_id=str(run.claim.grant.id), provider=run.client.name)
        await self._revoker.discard(run.client, run.claim.grant, tokens)
