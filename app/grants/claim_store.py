"""The SQL of T1: the right to refresh one generation of a grant, won, renewed and given back.

Who may claim is judged on PostgreSQL's clock only.
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import asyncpg
from sqlalchemy import (
    UUID,
    BigInteger,
    Boolean,
    ColumnElement,
    Interval,
    Text,
    and_,
    case,
    func,
    or_,
    select,
    update,
)

from app.db import Tx
from app.grants.claim import Claim, Term
from app.grants.grant import LeanGrant, Status, Trigger
from app.grants.store import NO_CLAIM, clock, to_grant
from app.statements import Prepared, Statements, given
from app.tables import grant_candidates, grants

_BEFORE_EXPIRY = timedelta(seconds=60)


def _claimed(free: ColumnElement[bool], **values: Any) -> Prepared:
    """The update of T1, where the grant is `free`: nothing where it is not, or its generation has passed.

    Of dead grants only a probe has a claim.
    """
    kept = select(grant_candidates.c.id).where(
        grant_candidates.c.grant_id == grants.c.id, grant_candidates.c.lineage_id == grants.c.lineage_id
    )
    fitting = (
        kept.where(grant_candidates.c.base_fingerprint == grants.c.refresh_fingerprint)
        .order_by(grant_candidates.c.created_at.desc())
        .limit(1)
    )
    is_probe = and_(given("is_probe", Boolean()), grants.c.status == Status.RECONNECT_REQUIRED)
    return Prepared(
        update(grants)
        .where(
            grants.c.id == given("grant_id", UUID()),
            or_(grants.c.status == Status.ACTIVE, is_probe),
            grants.c.lineage_id == given("lineage", UUID()),
            grants.c.generation == given("present_generation", BigInteger()),
            free,
        )
        .values(
            epoch=grants.c.epoch + 1,
            attempt_id=given("attempt", UUID()),
            lease_until=clock() + given("lease_ttl", Interval()),
            takeover_at=func.greatest(
                clock() + given("takeover_in", Interval()),
                # While the old access token lives, its owner has time to come back with the new ones.
                case((given("is_held_on", Boolean()), grants.c.expires_at - _BEFORE_EXPIRY)),
            ),
            **values,
        )
        .returning(
            *grants.c,
            fitting.scalar_subquery().label("candidate_id"),
            kept.exists().label("has_candidates"),
        )
    )


_CLAIM = _claimed(
    or_(
        grants.c.attempt_id.is_(None),
        and_(given("may_take_over", Boolean()), grants.c.takeover_at < clock()),
    ),
    owner=given("replica", Text()),
    # Whose claim it was may have sent the refresh token, and never came to say so.
    may_be_spent=or_(grants.c.may_be_spent, grants.c.attempt_id.is_not(None)),
)
_RENEW = _claimed(
    and_(
        grants.c.attempt_id == given("held_attempt", UUID()),
        grants.c.epoch == given("held_epoch", BigInteger()),
    )
)


async def claim(
    statements: Statements,
    grant: LeanGrant,
    *,
    attempt_id: uuid.UUID,
    trigger: Trigger,
    replica: str,
    term: Term,
    claimed_at: float,
    may_take_over: bool,
) -> Claim | None:
    """T1: the right to refresh this generation, or None where somebody else has it or the generation has passed.

    `may_take_over`: also that of a claim whose outcome is unknown, once its time is over. Committed when it returns;
    after DatabaseUnavailable perhaps, too.
    """
    wanted = _wanted(grant, trigger, attempt_id, term)
    row = await statements.one(_CLAIM, **wanted, replica=replica, may_take_over=may_take_over)
    return None if row is None else _to_claim(row, trigger, claimed_at)


async def renew_claim(
    statements: Statements, held: Claim, *, attempt_id: uuid.UUID, term: Term, claimed_at: float
) -> Claim | None:
    """A new claim in place of one that is still ours, with no moment in between for anybody else. Committed likewise."""
    wanted = _wanted(held.grant, held.trigger, attempt_id, term)
    row = await statements.one(_RENEW, **wanted, held_attempt=held.attempt_id, held_epoch=held.epoch)
    return None if row is None else _to_claim(row, held.trigger, claimed_at)


def _wanted(grant: LeanGrant, trigger: Trigger, attempt_id: uuid.UUID, term: Term) -> dict[str, Any]:
    return {
        "grant_id": grant.id,
        "lineage": grant.lineage_id,
        "present_generation": grant.generation,
        "attempt": attempt_id,
        "is_probe": trigger is Trigger.PROBE,
        "lease_ttl": term.lease_ttl,
        "takeover_in": max(term.lease_ttl, term.hold_at_least or timedelta(0)),
        "is_held_on": term.hold_at_least is not None,
    }


def _to_claim(row: asyncpg.Record, trigger: Trigger, claimed_at: float) -> Claim:
    return Claim(
        grant=to_grant(row),
        attempt_id=row["attempt_id"],
        epoch=row["epoch"],
        trigger=trigger,
        claimed_at=claimed_at,
        candidate_id=row["candidate_id"],
        has_candidates=row["has_candidates"],
    )


async def release(tx: Tx, grant_id: uuid.UUID, attempt_id: uuid.UUID) -> None:
    """Gives a claim back with nothing sent. May be repeated."""
    await tx.execute(
        update(grants).where(grants.c.id == grant_id, grants.c.attempt_id == attempt_id).values(**NO_CLAIM)
    )
