"""The SQL of finding what is due: which providers have something, taking some of it, and putting back what was not tried.

All of it goes by `grants_provider_due_idx`, however many grants are due.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ARRAY, ColumnElement, Text, and_, case, cast, func, literal, or_, select, update

from app.db import Tx
from app.grants.grant import Grant, Status
from app.grants.store import clock, to_grant
from app.tables import grants

# Written into the statement: of a parameter PostgreSQL cannot know that the partial index has all there is.
_ACTIVE = grants.c.status == literal(Status.ACTIVE, literal_execute=True)


async def providers(tx: Tx, names: Sequence[str], *, cutoff: datetime) -> list[str]:
    """Those of the registrations that have a grant whose time comes before `cutoff`, in the order of `names`."""
    wanted = func.unnest(cast(names, ARRAY(Text))).table_valued("name", name="wanted").render_derived()
    has_due = (
        select(literal(1))
        .where(grants.c.provider == wanted.c.name, _ACTIVE, grants.c.next_refresh_at <= cutoff)
        .exists()
    )
    return list(await tx.scalars(select(wanted.c.name).where(has_due)))


async def take(
    tx: Tx,
    provider: str,
    *,
    cutoff: datetime,
    tick_started: datetime,
    since: datetime | None,
    postpone_to: datetime,
    limit: int,
) -> list[Grant]:
    """Up to `limit` grants of the provider that come due before `cutoff`, the soonest first, each as it was: for now
    it is put off to `postpone_to`.

    None in the first half of its token's life, none that was tried since `tick_started`, none that is to be left alone
    after a failure, and none that another replica is taking at this moment. `since`: none that came due before that,
    so that PostgreSQL need not pass over all that has been taken already.
    """
    due = (
        select(grants.c.id, grants.c.next_refresh_at)
        .where(
            grants.c.provider == provider,
            _ACTIVE,
            grants.c.next_refresh_at <= cutoff,
            *(() if since is None else (grants.c.next_refresh_at >= since,)),
            _is_ripe(cutoff),
            _is_untried(tick_started),
            or_(grants.c.attempt_id.is_(None), grants.c.takeover_at < clock()),
        )
        .order_by(grants.c.next_refresh_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    others = (column for column in grants.c if column is not grants.c.next_refresh_at)
    taken = (
        update(grants)
        .where(grants.c.id == due.c.id)
        .values(next_refresh_at=postpone_to)
        .returning(*others, due.c.next_refresh_at)
    )
    rows = [(row.next_refresh_at, row._mapping) for row in await tx.execute(taken)]
    return [to_grant(row) for _, row in sorted(rows, key=lambda each: each[0])]


def _is_ripe(cutoff: datetime) -> ColumnElement[bool]:
    """After a failure not before its time has come; a token that is good not in the first half of its life."""
    has_failed = or_(grants.c.failures > 0, grants.c.refused_at.is_not(None))
    half_life = grants.c.expires_at - func.make_interval(0, 0, 0, 0, 0, 0, grants.c.issued_ttl_seconds / 2.0)
    return and_(
        grants.c.sealed_refresh_token.is_not(None),
        grants.c.next_refresh_at <= case((has_failed, clock()), else_=cutoff),
        or_(grants.c.issued_ttl_seconds.is_(None), half_life <= clock()),
    )


def _is_untried(tick_started: datetime) -> ColumnElement[bool]:
    return and_(
        or_(grants.c.last_error_at.is_(None), grants.c.last_error_at < tick_started),
        or_(grants.c.last_refreshed_at.is_(None), grants.c.last_refreshed_at < tick_started),
    )


async def put_back(tx: Tx, grant: Grant, *, postponed_to: datetime) -> bool:
    """Whether the grant is due again as it was when it was taken: not where anybody has tried it since."""
    query = (
        update(grants)
        .where(
            grants.c.id == grant.id,
            grants.c.next_refresh_at == postponed_to,
            grants.c.attempt_id.is_(None),
        )
        .values(next_refresh_at=grant.next_refresh_at)
        .returning(grants.c.id)
    )
    return (await tx.execute(query)).one_or_none() is not None
