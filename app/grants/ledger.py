"""How refreshes ended: T2 for the good ones, the record of the others, and the word to whoever waits.

Both are one short transaction that writes the grant, its history and the audit trail together; the notification
follows the commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from app.audit import store as audit
from app.audit.event import AuditEvent
from app.clock import Clock
from app.db import Database, DatabaseUnavailable, Tx, insist
from app.errors import GrantRefused, Sent, UpstreamError
from app.grants import attempt_store, refresh_store, store
from app.grants.grant import Claim, Grant, Outcome
from app.grants.known import KnownGrants
from app.grants.schedule import failure_backoff, refresh_margin
from app.grants.sealing import open_refresh_token, seal_tokens
from app.oauth.answers import TokenSet
from app.oauth.client import OAuthClient
from app.telemetry import REFRESH_SECONDS, REFRESHES, logger, noted
from app.vault.vault import Vault

log = logger(__name__)


@dataclass
class Run:
    """How far one refresh has got."""

    client: OAuthClient
    claim: Claim
    tries: int = 0
    may_be_spent: bool = False  # a try's outcome is unknown
    sent_at: float = 0.0  # monotonic seconds of the last try
    took: timedelta | None = None  # how long its answer took, where it is committed later than it came


class Ledger:
    """Writes down how a refresh ended."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        known: KnownGrants,
        clock: Clock,
        *,
        replica: str,
        commit_within: timedelta,
        margin: timedelta,
    ) -> None:
        self._db = db
        self._vault = vault
        self._known = known
        self._clock = clock
        self._replica = replica
        self._commit_within = commit_within
        self._margin = margin

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
        if grant is not None:
            self._report(run, Outcome.REFRESHED)
            await self._known.changed(grant)
        return grant

    async def commit_late(self, run: Run, tokens: TokenSet) -> Grant | None:
        """T2 for an answer out of the journal, once. Raises DatabaseUnavailable."""
        grant = await self._commit_once(run, tokens)
        if grant is not None:
            self._report(run, Outcome.REFRESHED)
            await self._known.changed(grant)
        return grant

    async def _commit_once(self, run: Run, tokens: TokenSet) -> Grant | None:
        claim, lifetime = run.claim, _seconds(tokens.expires_in)
        columns = self._columns(run, tokens)
        async with self._db.begin() as tx:
            if await attempt_store.was_applied(tx, claim.attempt_id):
                return await store.find_by_id(tx, claim.grant.id)  # only the answer to the COMMIT was lost
            grant = await refresh_store.commit_refresh(
                tx,
                claim,
                sent_at=self._clock.now() - timedelta(seconds=self._clock.monotonic() - run.sent_at),
                expires_in=lifetime,
                margin=None if lifetime is None else self._margin_of(run.client, lifetime),
                values=columns,
            )
            if grant is not None:
                rotated = grant.refresh_fingerprint != claim.grant.refresh_fingerprint
                await attempt_store.record(
                    tx,
                    claim,
                    replica=self._replica,
                    outcome=Outcome.REFRESHED,
                    milliseconds=self._milliseconds(run),
                    generation=grant.generation,
                    spent_fingerprint=claim.grant.refresh_fingerprint if rotated else None,
                )
                await audit.record(tx, _event("grant.refreshed", grant), now=self._clock.now())
        return grant

    def _columns(self, run: Run, tokens: TokenSet) -> dict[str, Any]:
        """What the next generation holds, every secret sealed for it anew."""
        grant = run.claim.grant
        columns = seal_tokens(
            self._vault,
            grant.id,
            grant.generation + 1,
            access_token=tokens.access_token,
            # RFC 6749 section 6: without a new refresh token the old one stays.
            refresh_token=tokens.refresh_token or open_refresh_token(self._vault, grant),
        )
        columns["token_type"] = tokens.token_type
        if (refresh_ttl := _refresh_ttl(run.client, tokens)) is not None:
            columns["refresh_expires_at"] = self._clock.now() + refresh_ttl
        if tokens.scope is not None:  # RFC 6749 section 5.1: left out, it is unchanged
            columns["scope"] = tokens.scope
        return columns

    def _margin_of(self, client: OAuthClient, lifetime: timedelta) -> timedelta:
        earliest = _seconds(client.provider.refresh_token.earliest_refresh_seconds)
        return refresh_margin(lifetime, minimum=self._margin, earliest=earliest)

    async def fail(self, run: Run, error: UpstreamError) -> None:
        """Records why there are no new tokens, and raises it: ReconnectRequired for a dead grant, else `error`.

        Returns where somebody else changed the grant meanwhile: then the failure tells nothing of what is stored now,
        an `invalid_grant` least of all.
        """
        reason, outcome = _reconnect_reason(run, error), _outcome(error)
        self._report(run, outcome, error.provider_code)
        try:
            recorded = await self._record_failure(run, error, reason, outcome)
        except DatabaseUnavailable:
            # The claim ends with its lease, and the caller learns what really happened.
            log.error("refresh.unrecorded", grant_id=str(run.claim.grant.id), provider=run.client.name)
            raise error from None
        await self._known.changed(run.claim.grant)
        if recorded is None:
            return
        now = self._clock.now()
        if recorded.is_held(now):
            error.retry_after = recorded.held_back(now).retry_after
        raise (run.claim.grant.dead(reason) if reason else error) from error

    async def _record_failure(
        self, run: Run, error: UpstreamError, reason: str | None, outcome: Outcome
    ) -> Grant | None:
        async with self._db.begin() as tx:
            recorded = await refresh_store.record_failure(
                tx,
                run.claim,
                error=_as_recorded(error, self._clock.now()),
                keep_claim=outcome is Outcome.UNKNOWN and run.client.provider.rotates,
                reconnect_reason=reason,
                retry_in=failure_backoff(run.claim.grant.failures),
            )
            await self._record_attempt(tx, run, error)
            if recorded is not None and reason:
                event = _event("grant.reconnect_required", run.claim.grant, reason=reason)
                await audit.record(tx, event, now=self._clock.now())
        return recorded

    async def record_try(self, run: Run, error: UpstreamError) -> None:
        """A try that failed and is followed by another: history only."""
        self._report(run, _outcome(error), error.provider_code)
        async with self._db.begin() as tx:
            await self._record_attempt(tx, run, error)

    async def _record_attempt(self, tx: Tx, run: Run, error: UpstreamError) -> None:
        await attempt_store.record(
            tx,
            run.claim,
            replica=self._replica,
            outcome=_outcome(error),
            category=error.category,
            provider_code=error.provider_code,
            milliseconds=self._milliseconds(run),
            generation=run.claim.grant.generation,
        )

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


def _seconds(value: int | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)


def _refresh_ttl(client: OAuthClient, tokens: TokenSet) -> timedelta | None:
    """How long the refresh token lives from now on; None where this refresh changes nothing about that."""
    if tokens.refresh_expires_in is not None and tokens.refresh_token is not None:
        return timedelta(seconds=tokens.refresh_expires_in)
    known = client.provider.refresh_token
    return None if known.absolute_lifetime_seconds else _seconds(known.idle_lifetime_seconds)


def _outcome(error: UpstreamError) -> Outcome:
    if isinstance(error, GrantRefused):
        return Outcome.DEAD
    return Outcome.UNKNOWN if error.sent is Sent.UNKNOWN else Outcome.FAILED


def _reconnect_reason(run: Run, error: UpstreamError) -> str | None:
    """Why the grant is dead, or None where it is not."""
    if not isinstance(error, GrantRefused):
        return None
    return "lost_rotation" if run.claim.took_over or run.may_be_spent else "invalid_grant"


def _as_recorded(error: UpstreamError, now: datetime) -> dict[str, Any]:
    """What a grant's `last_error` tells, and what those are told who waited for the attempt elsewhere."""
    return {
        "provider_code": error.provider_code,
        "retry_after": error.retry_after,
        "code": error.code,
        "category": error.category,
        "message": error.detail,
        "at": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }


def _event(action: str, grant: Grant, **details: str) -> AuditEvent:
    return AuditEvent(
        action,
        provider=grant.key.provider,
        user_id=grant.key.user_id,
        grant_id=grant.id,
        details={"generation": grant.generation, **details},
    )
