"""The SQL of finding what is due: which providers have something, taking some of it, and putting back what was not tried.

All of it goes by `grants_provider_due_idx`, however many grants are due.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    Text,
    and_,
    case,
    cast,
    func,
    literal,
    literal_column,
    or_,
    select,
    update,
)

from app.db import Tx
from app.grants.grant import LeanGrant, Status
from app.grants.store import LEAN, clock, to_lean
from app.statements import Prepared, Statements, given
from app.tables import grants

_TIME = DateTime(timezone=True)
_EVER = datetime(1970, 1, 1, tzinfo=UTC)  # comes before all that is due
# Written into the statement: of a parameter PostgreSQL cannot know that the partial index has all there is.
_ACTIVE = grants.c.status == literal(Status.ACTIVE, literal_execute=True)
# Where a row is, which no index need be searched for. It stays there while this statement has it locked.
_PLACE: ColumnElement[object] = literal_column("grants.ctid")


async def providers(tx: Tx, names: Sequence[str], *, cutoff: datetime) -> list[str]:
    """Those of the registrations that have a grant whose time comes before `cutoff`, in the order of `names`."""
    wanted = func.unnest(cast(names, ARRAY(Text))).table_valued("name", name="wanted").render_derived()
    has_due = (
        select(literal(1))
        .where(grants.c.provider == wanted.c.name, _ACTIVE, grants.c.next_refresh_at <= cutoff)
        .exists()
    )
    return list(await tx.scalars(select(wanted.c.name).where(has_due)))


def _taken() -> Prepared:
    cutoff, since = given("cutoff", _TIME), given("since", _TIME)
    due = (
        select(_PLACE.label("place"), grants.c.next_refresh_at)
        .where(
            grants.c.provider == given("provider", Text()),
            _ACTIVE,
            grants.c.next_refresh_at <= cutoff,
            grants.c.next_refresh_at >= since,
            _is_ripe(cutoff),
            _is_untried(given("tick_started", _TIME)),
            or_(grants.c.attempt_id.is_(None), grants.c.takeover_at < clock()),
        )
        .order_by(grants.c.next_refresh_at)
        .limit(given("most", BigInteger()))
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    others = (column for column in LEAN if column is not grants.c.next_refresh_at)
    return Prepared(
        update(grants)
        .where(due.c.place == _PLACE)
        .values(next_refresh_at=given("postpone_to", _TIME))
        .returning(*others, due.c.next_refresh_at)
    )


def _is_ripe(cutoff: ColumnElement[datetime]) -> ColumnElement[bool]:
    """After a failure not before its time has come; a token that is good not in the first half of its life."""
    has_failed = or_(grants.c.failures > 0, grants.c.refused_at.is_not(None))
    half_life = grants.c.expires_at - func.make_interval(0, 0, 0, 0, 0, 0, grants.c.issued_ttl_seconds / 2.0)
    return and_(
        grants.c.sealed_refresh_token.is_not(None),
        grants.c.next_refresh_at <= case((has_failed, clock()), else_=cutoff),
        or_(grants.c.issued_ttl_seconds.is_(None), half_life <= clock()),
    )


def _is_untried(tick_started: ColumnElement[datetime]) -> ColumnElement[bool]:
    return and_(
        or_(grants.c.last_error_at.is_(None), grants.c.last_error_at < tick_started),
        or_(grants.c.last_refreshed_at.is_(None), grants.c.last_refreshed_at < tick_started),
    )


_TAKE = _taken()


async def take(
    statements: Statements,
    provider: str,
    *,
    cutoff: datetime,
    tick_started: datetime,
    since: datetime | None,
    postpone_to: datetime,
    limit: int,
) -> list[LeanGrant]:
    """Up to `limit` grants of the provider that come due before `cutoff`, the soonest first, each as it was: for now
    it is put off to `postpone_to`.

    None in the first half of its token's life, none that was tried since `tick_started`, none that is to be left alone
    after a failure, and none that another replica is taking at this moment. `since`: none that came due before that,
    so that PostgreSQL need not pass over all that has been taken already.
    """
    rows = await statements.all(
        _TAKE,
        provider=provider,
        cutoff=cutoff,
        tick_started=tick_started,
        since=_EVER if since is None else since,
        postpone_to=postpone_to,
        most=limit,
    )
    return [to_lean(row) for row in sorted(rows, key=lambda row: row["next_refresh_at"])]


async def put_back(tx: Tx, taken: Collection[LeanGrant], *, postponed_to: datetime) -> set[uuid.UUID]:
    """The ids of those that are due again as they were when they were taken: not where anybody has tried one since."""
    ids = cast([grant.id for grant in taken], ARRAY(grants.c.id.type))
    times = cast([grant.next_refresh_at for grant in taken], ARRAY(_TIME))
    was = func.unnest(ids, times).table_valued("id", "due_at", name="was").render_derived()
    query = (
        update(grants)
        .where(
            grants.c.id == was.c.id,
            grants.c.next_refresh_at == postponed_to,
            grants.c.attempt_id.is_(None),
        )
        .values(next_refresh_at=was.c.due_at)
        .returning(grants.c.id)
    )
    return set(await tx.scalars(query))
