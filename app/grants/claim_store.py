"""The SQL of T1: the right to refresh one generation of a grant, won, renewed and given back.

Who may claim is judged on PostgreSQL's clock only.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, literal, or_, select, update

from app.db import Tx
from app.grants.claim import Claim, Term
from app.grants.grant import Grant, Status, Trigger
from app.grants.store import NO_CLAIM, clock, to_grant
from app.tables import grant_candidates, grants

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

    `may_take_over`: also that of a claim whose outcome is unknown, once its time is over. Of dead grants only a probe
    has one.
    """
    return await _claim(
        tx,
        grant,
        or_(grants.c.attempt_id.is_(None), and_(literal(may_take_over), grants.c.takeover_at < clock())),
        {
            "attempt_id": attempt_id,
            "owner": replica,
            # Whose claim it was may have sent the refresh token, and never came to say so.
            "may_be_spent": or_(grants.c.may_be_spent, grants.c.attempt_id.is_not(None)),
            **_until(term),
        },
        trigger=trigger,
        claimed_at=claimed_at,
    )


async def renew_claim(
    tx: Tx, held: Claim, *, attempt_id: UUID, term: Term, claimed_at: float
) -> Claim | None:
    """A new claim in place of one that is still ours, with no moment in between for anybody else."""
    return await _claim(
        tx,
        held.grant,
        and_(grants.c.attempt_id == held.attempt_id, grants.c.epoch == held.epoch),
        {"attempt_id": attempt_id, **_until(term)},
        trigger=held.trigger,
        claimed_at=claimed_at,
    )


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
    statuses = [Status.ACTIVE, *([Status.RECONNECT_REQUIRED] if trigger is Trigger.PROBE else [])]
    kept = select(grant_candidates.c.id).where(
        grant_candidates.c.grant_id == grants.c.id, grant_candidates.c.lineage_id == grants.c.lineage_id
    )
    fitting = (
        kept.where(grant_candidates.c.base_fingerprint == grants.c.refresh_fingerprint)
        .order_by(grant_candidates.c.created_at.desc())
        .limit(1)
    )
    query = (
        update(grants)
        .where(
            grants.c.id == grant.id,
            grants.c.status.in_(statuses),
            grants.c.lineage_id == grant.lineage_id,
            grants.c.generation == grant.generation,
            free,
        )
        .values(epoch=grants.c.epoch + 1, **values)
        .returning(
            *grants.c,
            fitting.scalar_subquery().label("candidate_id"),
            kept.exists().label("has_candidates"),
        )
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
        candidate_id=row.candidate_id,
        has_candidates=row.has_candidates,
    )


async def release(tx: Tx, grant_id: UUID, attempt_id: UUID) -> None:
    """Gives a claim back with nothing sent. May be repeated."""
    await tx.execute(
        update(grants).where(grants.c.id == grant_id, grants.c.attempt_id == attempt_id).values(**NO_CLAIM)
    )
