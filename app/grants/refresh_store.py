"""The SQL of how a refresh ends: T2 is `commit_refresh`.

A failure is fenced by epoch and attempt, a success by lineage: a late holder's new refresh token may be the only live
one, so it must not be lost to a fence.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import case, func, literal, or_, update

from app.db import Tx
from app.grants.claim import Claim
from app.grants.grant import Grant, Status
from app.grants.store import NO_CLAIM, NO_DOUBT, clock, to_grant
from app.tables import grants


def life(*, sent_at: datetime, expires_in: timedelta | None, margin: timedelta | None) -> dict[str, Any]:
    """What is said of a new access token: its life is counted from `sent_at`, by PostgreSQL's time, however long the
    statement has to wait."""
    expires_at = None if expires_in is None else sent_at + expires_in
    left = None if expires_at is None else func.greatest(0.0, func.extract("epoch", expires_at - clock()))
    return {
        "expires_at": expires_at,
        "issued_ttl_seconds": left,
        "next_refresh_at": None if expires_at is None or margin is None else expires_at - margin,
        "failures": 0,
        "last_error": None,
        "last_error_at": None,
        "refresh_count": grants.c.refresh_count + 1,
        "last_refreshed_at": clock(),
    }


def flawed(*, error: Mapping[str, Any] | None, retry_in: timedelta) -> dict[str, Any]:
    """What is said of a grant whose present access token stays, since the answer had none of use."""
    return {
        "failures": grants.c.failures + 1,
        "last_error": error,
        "last_error_at": clock(),
        "next_refresh_at": clock() + retry_in,
    }


async def commit_refresh(
    tx: Tx,
    held: Claim,
    *,
    values: Mapping[str, Any],
) -> Grant | None:
    """T2: the next generation, or None where a newer lineage, a revocation or another refresh came in between.

    `values` are its columns: what is sealed for it, and what `life` or `flawed` says of it.
    """
    grant = held.grant
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
            **NO_DOUBT,
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
    may_be_spent: bool,
    retry_in: timedelta,
) -> Grant | None:
    """The grant with what went wrong; None where somebody else has claimed it meanwhile, and nothing was written.

    `keep_claim`: the outcome is unknown, so nobody may send the refresh token before the takeover. `may_be_spent`: that
    of one of the tries is. A dead grant that was probed stays dead.
    """
    claim_columns: dict[str, None] = {"lease_until": None} if keep_claim else NO_CLAIM
    is_active = grants.c.status == Status.ACTIVE
    values = {
        **claim_columns,
        "may_be_spent": or_(grants.c.may_be_spent, literal(may_be_spent)),
        "failures": grants.c.failures + 1,
        "last_error": error,
        "last_error_at": clock(),
        "next_refresh_at": case((is_active, clock() + retry_in)),
    }
    return await _end_claim(tx, held, values)


async def record_death(
    tx: Tx, held: Claim, *, error: Mapping[str, Any], reason: str, probe_in: timedelta | None
) -> Grant | None:
    """The grant, dead for that reason; None as for `record_failure`. Its sealed tokens stay, and are tried once more
    `probe_in` from now."""
    values = {
        **NO_CLAIM,
        "status": Status.RECONNECT_REQUIRED,
        "reconnect_reason": reason,
        "refused_at": None if reason == "lost_rotation" else func.coalesce(grants.c.refused_at, clock()),
        "probe_at": None if probe_in is None else clock() + probe_in,
        "failures": grants.c.failures + 1,
        "last_error": error,
        "last_error_at": clock(),
        "next_refresh_at": None,
    }
    return await _end_claim(tx, held, values)


async def record_doubt(tx: Tx, held: Claim, *, error: Mapping[str, Any], retry_in: timedelta) -> Grant | None:
    """The grant, called dead by a provider that is not believed at the moment; None as for `record_failure`."""
    values = {
        **NO_CLAIM,
        "refused_at": func.coalesce(grants.c.refused_at, clock()),
        "failures": grants.c.failures + 1,
        "last_error": error,
        "last_error_at": clock(),
        "next_refresh_at": clock() + retry_in,
    }
    return await _end_claim(tx, held, values)


async def _end_claim(tx: Tx, held: Claim, values: Mapping[str, Any]) -> Grant | None:
    result = await tx.execute(
        update(grants)
        .where(
            grants.c.id == held.grant.id,
            grants.c.epoch == held.epoch,
            grants.c.attempt_id == held.attempt_id,
            grants.c.generation == held.grant.generation,
        )
        .values(**values, updated_at=clock())
        .returning(*grants.c)
    )
    row = result.one_or_none()
    return None if row is None else to_grant(row._mapping)
