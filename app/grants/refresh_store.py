"""The SQL of a refresh: T1 is `claim`, T2 is `commit_refresh`; and of finding those that are due.

A failure is fenced by epoch and attempt, a success by lineage: a late holder's new refresh token may be the only live
one, so it must not be lost to a fence. Who may claim is judged on PostgreSQL's clock only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, literal, or_, select, update

from app.db import Tx
from app.grants.grant import Claim, Grant, Status, Term, Trigger
from app.grants.store import NO_CLAIM, clock, to_grant
from app.tables import grants

_BEFORE_EXPIRY = timedelta(seconds=60)


async def claim(
    tx: Tx,
    grant: Grant,
    *,
    attempt_id: UUID,
    trigger: Trigger,
    replica: str,
    term: Term,
    claimed_at: float,
    may_take_over: bool,
) -> Claim | None:
    """T1: the right to refresh this generation, or None where somebody else has it or the generation has passed.

    `may_take_over`: also that of a claim whose outcome is unknown, once its time is over.
    """
    return await _claim(
        tx,
        grant,
        or_(grants.c.attempt_id.is_(None), and_(literal(may_take_over), grants.c.takeover_at < clock())),
        {"attempt_id": attempt_id, "owner": replica, **_until(term)},
        trigger=trigger,
        claimed_at=claimed_at,
    )


async def renew_claim(
    tx: Tx, held: Claim, *, attempt_id: UUID, term: Term, claimed_at: float
) -> Claim | None:
    """A new claim in place of one that is still ours, with no moment in between for anybody else."""
    renewed = await _claim(
        tx,
        held.grant,
        and_(grants.c.attempt_id == held.attempt_id, grants.c.epoch == held.epoch),
        {"attempt_id": attempt_id, **_until(term)},
        trigger=held.trigger,
        claimed_at=claimed_at,
    )
    return None if renewed is None else replace(renewed, took_over=held.took_over)


def _until(term: Term) -> dict[str, ColumnElement[datetime]]:
    """When the lease ends, and when somebody else may take over: no sooner."""
    takeover_at = clock() + max(term.lease_ttl, term.hold_at_least or timedelta(0))
    if term.hold_at_least is not None:
        # While the old access token lives, its owner has time to come back with the new ones.
        takeover_at = func.greatest(takeover_at, grants.c.expires_at - _BEFORE_EXPIRY)
    return {"lease_until": clock() + term.lease_ttl, "takeover_at": takeover_at}


async def _claim(
    tx: Tx,
    grant: Grant,
    free: ColumnElement[bool],
    values: Mapping[str, Any],
    *,
    trigger: Trigger,
    claimed_at: float,
) -> Claim | None:
    prior = (
        select(grants.c.id, grants.c.attempt_id).where(grants.c.id == grant.id).with_for_update().cte("prior")
    )
    query = (
        update(grants)
        .where(
            grants.c.id == prior.c.id,
            grants.c.status == Status.ACTIVE,
            grants.c.lineage_id == grant.lineage_id,
            grants.c.generation == grant.generation,
            free,
        )
        .values(epoch=grants.c.epoch + 1, **values)
        .returning(*grants.c, prior.c.attempt_id.label("prior_attempt_id"))
    )
    row = (await tx.execute(query)).one_or_none()
    if row is None:
        return None
    return Claim(
        grant=to_grant(row._mapping),
        attempt_id=row.attempt_id,
        epoch=row.epoch,
        trigger=trigger,
        claimed_at=claimed_at,
        took_over=row.prior_attempt_id is not None,
    )


async def commit_refresh(
    tx: Tx,
    held: Claim,
    *,
    sent_at: datetime,
    expires_in: timedelta | None,
    margin: timedelta | None,
    values: Mapping[str, Any],
) -> Grant | None:
    """T2: the new token set, or None where a newer lineage, a revocation or another refresh came in between.

    The token's life is counted from `sent_at`, by PostgreSQL's time, however long this statement has to wait. `values`
    are the columns sealed for the next generation.
    """
    grant = held.grant
    expires_at = None if expires_in is None else sent_at + expires_in
    left = None if expires_at is None else func.greatest(0.0, func.extract("epoch", expires_at - clock()))
    query = (
        update(grants)
        .where(
            grants.c.id == grant.id,
            grants.c.lineage_id == grant.lineage_id,
            grants.c.generation == grant.generation,
            grants.c.refresh_fingerprint.is_not_distinct_from(grant.refresh_fingerprint),
            grants.c.status.in_([Status.ACTIVE, Status.RECONNECT_REQUIRED]),
        )
        .values(
            **NO_CLAIM,
            **values,
            status=Status.ACTIVE,
            reconnect_reason=None,
            generation=grant.generation + 1,
            expires_at=expires_at,
            issued_ttl_seconds=left,
            next_refresh_at=None if expires_at is None or margin is None else expires_at - margin,
            failures=0,
            last_error=None,
            last_error_at=None,
            refresh_count=grants.c.refresh_count + 1,
            last_refreshed_at=clock(),
            updated_at=clock(),
        )
        .returning(*grants.c)
    )
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else to_grant(row._mapping)


async def record_failure(
    tx: Tx,
    held: Claim,
    *,
    error: Mapping[str, Any],
    keep_claim: bool,
    reconnect_reason: str | None,
    retry_in: timedelta,
) -> Grant | None:
    """The grant with what went wrong; None where somebody else has claimed it meanwhile, and nothing was written.

    `keep_claim`: the outcome is unknown, so nobody may send the refresh token before the takeover. With a
    `reconnect_reason` the grant is dead; its sealed tokens stay.
    """
    claim_columns: dict[str, None] = {"lease_until": None} if keep_claim else NO_CLAIM
    status = Status.RECONNECT_REQUIRED if reconnect_reason else Status.ACTIVE
    result = await tx.execute(
        update(grants)
        .where(
            grants.c.id == held.grant.id,
            grants.c.epoch == held.epoch,
            grants.c.attempt_id == held.attempt_id,
            grants.c.generation == held.grant.generation,
        )
        .values(
            **claim_columns,
            status=status,
            reconnect_reason=reconnect_reason,
            failures=grants.c.failures + 1,
            last_error=error,
            last_error_at=clock(),
            next_refresh_at=None if reconnect_reason else clock() + retry_in,
            updated_at=clock(),
        )
        .returning(*grants.c)
    )
    row = result.one_or_none()
    return None if row is None else to_grant(row._mapping)


async def release(tx: Tx, held: Claim) -> None:
    """Gives a claim back with nothing sent."""
    await tx.execute(
        update(grants)
        .where(
            grants.c.id == held.grant.id, grants.c.epoch == held.epoch, grants.c.attempt_id == held.attempt_id
        )
        .values(**NO_CLAIM)
    )


async def take_due(
    tx: Tx,
    *,
    cutoff: datetime,
    tick_started: datetime,
    postpone_to: datetime,
    skip: Sequence[str],
    limit: int,
) -> list[Grant]:
    """Up to `limit` grants that come due before `cutoff`, the soonest first, put off to `postpone_to` for now.

    None in the first half of its token's life, none that failed since `tick_started`, none of the providers in `skip`,
    and none that another replica is taking at this moment.
    """
    half_life = grants.c.expires_at - func.make_interval(0, 0, 0, 0, 0, 0, grants.c.issued_ttl_seconds / 2.0)
    due = (
        select(grants.c.id)
        .where(
            grants.c.status == Status.ACTIVE,
            grants.c.next_refresh_at <= cutoff,
            grants.c.sealed_refresh_token.is_not(None),
            or_(grants.c.issued_ttl_seconds.is_(None), half_life <= clock()),
            or_(grants.c.last_error_at.is_(None), grants.c.last_error_at < tick_started),
            or_(grants.c.attempt_id.is_(None), grants.c.takeover_at < clock()),
            grants.c.provider.not_in(skip),
        )
        .order_by(grants.c.next_refresh_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    rows = await tx.execute(
        update(grants).where(grants.c.id == due.c.id).values(next_refresh_at=postpone_to).returning(*grants.c)
    )
    return sorted((to_grant(row._mapping) for row in rows), key=lambda grant: grant.expires_at or postpone_to)
