"""How refreshes ended: T2 for the good ones, the record of the others, and the word to whoever waits.

Both are one short transaction that writes the grant, its history and the audit trail together; the notification
follows the commit.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

from app.audit import store as audit
from app.audit.event import AuditEvent
from app.clock import Clock
from app.db import Database, Tx, insist
from app.errors import BrokerError, GrantRefused, UpstreamError
from app.grants import attempt_store, refresh_store
from app.grants.attempt import (
    Run,
    as_recorded,
    is_ordinary,
    outcome_of,
    outcome_of_answer,
    reason_of_death,
    told_of,
)
from app.grants.claims import Claims
from app.grants.grant import Grant, Outcome, Status, Trigger
from app.grants.incidents import Incidents
from app.grants.known import KnownGrants
from app.grants.rotation import Rotation
from app.grants.schedule import PROBE_AFTER, failure_backoff
from app.metrics import REFRESH_SECONDS, REFRESHES
from app.oauth.answers import TokenSet
from app.outages import DatabaseUnavailable
from app.telemetry import logger, noted

log = logger(__name__)


class Ledger:
    """Writes down how a refresh ended."""

    def __init__(
        self,
        db: Database,
        rotation: Rotation,
        incidents: Incidents,
        claims: Claims,
        known: KnownGrants,
        clock: Clock,
        *,
        replica: str,
        commit_within: timedelta,
    ) -> None:
        self._db = db
        self._rotation = rotation
        self._incidents = incidents
        self._claims = claims
        self._known = known
        self._clock = clock
        self._replica = replica
        self._commit_within = commit_within

    async def commit(self, run: Run, tokens: TokenSet) -> Grant | None:
        """T2: the grant with its new generation; None where it was revoked, replaced or refreshed by others meanwhile.

        Tries until PostgreSQL has it, or the time for it is over. Raises DatabaseUnavailable then.
        """
        REFRESH_SECONDS.labels(run.client.name).observe(self._clock.monotonic() - run.sent_at)
        try:
            grant = await insist(
                lambda: self._commit_once(run, tokens), clock=self._clock, within=self._commit_within
            )
        except DatabaseUnavailable:
            self._report(run, Outcome.UNKNOWN, "database_unavailable")
            raise
        return await self._committed(run, tokens, grant)

    async def commit_late(self, run: Run, tokens: TokenSet) -> Grant | None:
        """T2 for an answer that waited, once. Raises DatabaseUnavailable."""
        return await self._committed(run, tokens, await self._commit_once(run, tokens))

    async def fail(self, run: Run, error: UpstreamError) -> None:
        """Records why there are no new tokens, and raises it: ReconnectRequired for a dead grant, else `error`, or
        what an incident makes of it.

        Returns where somebody else changed the grant meanwhile: then the failure tells nothing of what is stored now,
        an `invalid_grant` least of all.
        """
        self._report(run, outcome_of(error), error.provider_code)
        try:
            recorded, told = await self._record_failure(run, error)
        except DatabaseUnavailable:
            # The caller learns what really happened, and the claim ends by itself where we must not give it back.
            if outcome_of(error) is not Outcome.UNKNOWN and not run.may_be_spent:
                await self._claims.give_back(run.claim.grant.id, run.claim.attempt_id)
            log.error("refresh.unrecorded", grant_id=str(run.claim.grant.id), provider=run.client.name)
            if isinstance(
                error, GrantRefused
            ):  # not believed, since it could not be compared with what is stored
                raise
            raise error from None
        await self._known.changed(run.claim.grant)
        if recorded is None:
            return
        now = self._clock.now()
        if recorded.is_held(now):
            told.retry_after = recorded.held_back(now).retry_after
        raise told from error

    async def record_try(self, run: Run, error: UpstreamError) -> None:
        """A try that failed and is followed by another: history only, where PostgreSQL can be had."""
        self._report(run, outcome_of(error), error.provider_code)
        with suppress(DatabaseUnavailable):
            async with self._db.begin() as tx:
                await self._record_attempt(tx, run, error)

    async def _committed(self, run: Run, tokens: TokenSet, grant: Grant | None) -> Grant | None:
        if grant is not None:
            self._report(run, outcome_of_answer(tokens), told_of(run)[1])
            await self._known.changed(grant)
        return grant

    async def _commit_once(self, run: Run, tokens: TokenSet) -> Grant | None:
        """One statement where the grant is still as it was sent and nothing else has to be tidied up, as nearly always."""
        if is_ordinary(run, tokens):
            renewed = await self._renew(run, tokens)
            if renewed is not None:
                return renewed
        async with self._db.begin() as tx:
            stored = await self._rotation.store(tx, run, tokens)
            if stored is None or stored.was_applied:
                await self._db.await_standby(tx)  # what was read here ends the answer's life in the journal
                return None if stored is None else stored.grant
            before, grant = run.claim.grant, stored.grant
            await attempt_store.record(tx, self._success(run, tokens, grant.refresh_fingerprint))
            await audit.record(tx, _refreshed(run), now=self._clock.now())
            if before.status is not Status.ACTIVE:
                await audit.record(tx, _event("grant.recovered", grant), now=self._clock.now())
            if before.refused_at is not None:
                await self._incidents.recovered(tx, grant)
        return grant

    async def _renew(self, run: Run, tokens: TokenSet) -> Grant | None:
        values = self._rotation.values(run, tokens)
        return await refresh_store.renew(
            self._db.statements,
            run.claim,
            values=values,
            ended=self._success(run, tokens, values["refresh_fingerprint"]),
            event=audit.noted(_refreshed(run), now=self._clock.now()),
        )

    def _success(self, run: Run, tokens: TokenSet, fingerprint: bytes | None) -> dict[str, Any]:
        """What the history says of a grant that has the refresh token of that `fingerprint` now."""
        before = run.claim.grant
        spent = before.refresh_fingerprint
        category, provider_code = told_of(run)
        return attempt_store.ended(
            run.claim,
            replica=self._replica,
            outcome=outcome_of_answer(tokens),
            category=category,
            provider_code=provider_code,
            milliseconds=self._milliseconds(run),
            generation=before.generation + 1,
            spent_fingerprint=None if spent == fingerprint else spent,
        )

    async def _record_failure(self, run: Run, error: UpstreamError) -> tuple[Grant | None, BrokerError]:
        """The grant as it is now, None where it is not ours any more; and what callers are told."""
        async with self._db.begin() as tx:
            if isinstance(error, GrantRefused):
                recorded, told = await self._record_refusal(tx, run, error)
            else:
                told = error
                recorded = await refresh_store.record_failure(
                    tx,
                    run.claim,
                    error=as_recorded(error, self._clock.now()),
                    keep_claim=outcome_of(error) is Outcome.UNKNOWN and run.client.provider.rotates,
                    may_be_spent=run.may_be_spent,
                    retry_in=failure_backoff(run.claim.grant.failures),
                )
            await self._record_attempt(tx, run, error)
        return recorded, told

    async def _record_refusal(
        self, tx: Tx, run: Run, error: GrantRefused
    ) -> tuple[Grant | None, BrokerError]:
        now, reason = self._clock.now(), reason_of_death(run)
        doubt = await self._incidents.doubt(tx, run, reason)
        if doubt is not None:
            recorded = await refresh_store.record_doubt(
                tx, run.claim, error=as_recorded(doubt.error, now), retry_in=doubt.retry_in
            )
            return recorded, doubt.error
        recorded = await refresh_store.record_death(
            tx,
            run.claim,
            error=as_recorded(error, now),
            reason=reason,
            probe_in=None if run.claim.trigger is Trigger.PROBE else PROBE_AFTER,
        )
        if recorded is not None and run.claim.trigger is not Trigger.PROBE:
            event = _event("grant.reconnect_required", run.claim.grant, reason=reason)
            await audit.record(tx, event, now=now)
        return recorded, run.claim.grant.dead(reason)

    async def _record_attempt(self, tx: Tx, run: Run, error: UpstreamError) -> None:
        failure = attempt_store.ended(
            run.claim,
            replica=self._replica,
            outcome=outcome_of(error),
            category=error.category,
            provider_code=error.provider_code,
            milliseconds=self._milliseconds(run),
            generation=run.claim.grant.generation,
        )
        await attempt_store.record(tx, failure)

    def _report(self, run: Run, outcome: Outcome, provider_code: str | None = None) -> None:
        """One metric and one line a try."""
        REFRESHES.labels(run.client.name, outcome).inc()
        log.info(
            "refresh",
            consumer=noted("consumer"),
            provider=run.client.name,
            grant_id=str(run.claim.grant.id),
            user_id=run.claim.grant.key.user_id,
            trigger=run.claim.trigger,
            outcome=outcome,
            provider_code=provider_code,
            milliseconds=self._milliseconds(run),
        )

    def _milliseconds(self, run: Run) -> int:
        took = self._clock.monotonic() - run.sent_at if run.took is None else run.took.total_seconds()
        return round(took * 1000)


def _refreshed(run: Run) -> AuditEvent:
    before = run.claim.grant
    return _event("grant.refreshed", before, generation=before.generation + 1)


def _event(action: str, grant: Grant, **details: str | int) -> AuditEvent:
    return AuditEvent(
        action,
        provider=grant.key.provider,
        user_id=grant.key.user_id,
        grant_id=grant.id,
        details={"generation": grant.generation, **details},
    )
