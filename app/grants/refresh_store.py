"""The SQL of how a refresh ends: T2 is `renew`, and `commit_refresh` where it is part of more.

A failure is fenced by epoch and attempt, a success by lineage: a late holder's new refresh token may be the only live
one, so it must not be lost to a fence.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    CTE,
    UUID,
    BigInteger,
    ColumnElement,
    DateTime,
    Interval,
    LargeBinary,
    Text,
    case,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB

from app.audit import store as audit
from app.audit.event import NewEvent
from app.db import Tx
from app.grants import attempt_store
from app.grants.claim import Claim
from app.grants.grant import Grant, Status
from app.grants.store import NO_CLAIM, NO_DOUBT, clock, to_grant
from app.statements import Prepared, Statements, given
from app.tables import grants

_TIME = DateTime(timezone=True)


def life(*, sent_at: datetime, expires_in: timedelta | None, margin: timedelta | None) -> dict[str, Any]:
    """What is given of a new access token: its life is counted from `sent_at`, however long the statement has to wait."""
    expires_at = None if expires_in is None else sent_at + expires_in
    due_at = None if expires_at is None or margin is None else expires_at - margin
    return {"expires_at": expires_at, "next_refresh_at": due_at}


def flawed(*, error: Mapping[str, Any] | None, retry_in: timedelta) -> dict[str, Any]:
    """What is given of a grant whose present access token stays, since the answer had none of use."""
    return {"error": error, "retry_in": retry_in}


def _next_generation(**more: Any) -> CTE:
    """The update itself: nothing where a newer lineage, a revocation or another refresh came in between."""
    generation = given("generation", BigInteger())
    return (
        update(grants)
        .where(
            grants.c.id == given("grant_id", UUID()),
            grants.c.lineage_id == given("lineage_id", UUID()),
            grants.c.generation == generation,
            grants.c.refresh_fingerprint.is_not_distinct_from(given("sent_fingerprint", LargeBinary())),
            grants.c.status.in_([Status.ACTIVE, Status.RECONNECT_REQUIRED]),
        )
        .values(
            **NO_CLAIM,
            **more,
            sealed_access_token=given("sealed_access_token", LargeBinary()),
            sealed_refresh_token=given("sealed_refresh_token", LargeBinary()),
            refresh_fingerprint=given("refresh_fingerprint", LargeBinary()),
            refresh_expires_at=func.coalesce(given("refresh_expires_at", _TIME), grants.c.refresh_expires_at),
            status=Status.ACTIVE,
            reconnect_reason=None,
            generation=generation + 1,
            **NO_DOUBT,
            updated_at=clock(),
        )
        .returning(*grants.c)
        .cte("renewed")
    )


def _left(expires_at: ColumnElement[datetime]) -> ColumnElement[float | None]:
    """How long the new token still lives, by PostgreSQL's time; null for one that does not end."""
    left = func.extract("epoch", expires_at - clock())
    return case((expires_at.is_not(None), func.greatest(0.0, left)))


_WHOLE = _next_generation(
    token_type=given("token_type", Text()),
    scope=func.coalesce(given("scope", Text()), grants.c.scope),
    expires_at=given("expires_at", _TIME),
    issued_ttl_seconds=_left(given("expires_at", _TIME)),
    next_refresh_at=given("next_refresh_at", _TIME),
    failures=0,
    last_error=None,
    last_error_at=None,
    refresh_count=grants.c.refresh_count + 1,
    last_refreshed_at=clock(),
)
_HALF = _next_generation(
    failures=grants.c.failures + 1,
    last_error=given("error", JSONB(none_as_null=True)),
    last_error_at=clock(),
    next_refresh_at=clock() + given("retry_in", Interval()),
)
_RENEW = Prepared(
    select(_WHOLE).add_cte(
        attempt_store.recorded_with(_WHOLE).cte("attempt"), audit.recorded_with(_WHOLE).cte("event")
    )
)


async def renew(
    statements: Statements,
    held: Claim,
    *,
    values: Mapping[str, Any],
    ended: Mapping[str, Any],
    event: NewEvent,
) -> Grant | None:
    """T2 in one statement: the next generation with its row of the history and its event, or None and nothing of it."""
    row = await statements.one(
        _RENEW, **_as_sent(held), **values, **attempt_store.given_of(ended), **audit.given_of(event)
    )
    return None if row is None else to_grant(row)


async def commit_refresh(tx: Tx, held: Claim, *, values: Mapping[str, Any]) -> Grant | None:
    """The update alone; None where a newer lineage, a revocation or another refresh came in between.

    `values` are what is sealed for the next generation, and what `life` or `flawed` says of it.
    """
    renewed = _HALF if "retry_in" in values else _WHOLE
    row = (await tx.execute(select(renewed).params(**_as_sent(held), **values))).one_or_none()
    return None if row is None else to_grant(row._mapping)


def _as_sent(held: Claim) -> dict[str, Any]:
    """What the update is compared with: the grant as it was when its refresh token was sent."""
    sent = held.grant
    return {
        "grant_id": sent.id,
        "lineage_id": sent.lineage_id,
        "generation": sent.generation,
        "sent_fingerprint": sent.refresh_fingerprint,
    }


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
