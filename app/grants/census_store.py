"""The SQL of the census: all grants counted by provider and health, in one pass."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import ColumnElement, and_, case, func, or_, select

from app.db import Tx
from app.grants.census import Census, Group
from app.grants.grant import EXPIRING_WITHIN, Health, Status
from app.grants.store import clock
from app.tables import grants

_VALID = and_(
    grants.c.sealed_access_token.is_not(None),
    or_(grants.c.expires_at.is_(None), grants.c.expires_at > clock()),
)
_REFRESHABLE = and_(grants.c.sealed_refresh_token.is_not(None), grants.c.expires_at.is_not(None))
_HELD = and_(
    grants.c.attempt_id.is_not(None),
    grants.c.takeover_at > clock(),
    func.coalesce(grants.c.lease_until <= clock(), True),
)
_DUE = and_(grants.c.next_refresh_at <= clock(), _REFRESHABLE, ~_HELD)


def _ends_within(span: timedelta) -> ColumnElement[bool]:
    return grants.c.expires_at < clock() + span


# The same as `Grant.health`, which a test holds it to.
_HEALTH = case(
    (grants.c.status != Status.ACTIVE, Health.DEAD),
    (and_(~_VALID, grants.c.failures > 0), Health.FAILING),
    (~_VALID, Health.EXPIRED),
    (grants.c.failures > 0, Health.FAILING),
    (func.coalesce(_DUE, False), Health.EXPIRING_SOON),
    (
        func.coalesce(and_(~_REFRESHABLE, _ends_within(EXPIRING_WITHIN)), False),
        Health.EXPIRING_SOON,
    ),
    else_=Health.HEALTHY,
)


async def count(tx: Tx) -> Census:
    """How many grants there are of each kind, how many are due, and when the first token of those alive ends."""
    is_active = grants.c.status == Status.ACTIVE
    query = (
        select(
            grants.c.provider,
            _HEALTH.label("health"),
            func.count().label("number"),
            func.count().filter(is_active, grants.c.next_refresh_at <= clock()).label("due"),
            func.min(grants.c.expires_at)
            .filter(is_active, grants.c.expires_at > clock())
            .label("soonest_expiry_at"),
        )
        .where(grants.c.status != Status.REVOKED)
        .group_by(grants.c.provider, _HEALTH)
    )
    return Census(
        tuple(
            Group(row.provider, Health(row.health), row.number, row.due, row.soonest_expiry_at)
            for row in await tx.execute(query)
        )
    )
