"""The SQL of asking providers, by the timetable, whether access tokens still work: whose turn it is, which grant is
next, and what came of it.

Each function takes the transaction first, and none commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from app.db import Tx
from app.grants import store
from app.grants.grant import Grant, Status
from app.grants.pace import Standing
from app.grants.store import clock, to_grant
from app.tables import grants, validation_turns

_STILL_GOOD_FOR = timedelta(minutes=1)  # a token that ends while it is asked about tells nothing
# When something was last heard of a grant. The index `grants_unasked_idx` is on this very expression.
_heard_last = func.greatest(grants.c.created_at, grants.c.last_refreshed_at, grants.c.unasked_since)


async def take_turns(tx: Tx, providers: Sequence[str], *, rest: timedelta) -> list[str]:
    """Those of `providers` whose turn it is: nobody else's until `rest` from now. Give them in order, since each is
    locked for the length of the transaction."""
    next_at = clock() + rest
    query = upsert(validation_turns).values([{"provider": name, "next_at": next_at} for name in providers])
    taken = query.on_conflict_do_update(
        index_elements=[validation_turns.c.provider],
        set_={"next_at": next_at},
        where=validation_turns.c.next_at <= clock(),
    ).returning(validation_turns.c.provider)
    return list(await tx.scalars(taken))


async def take_next(tx: Tx, provider: str, *, unheard_since: datetime) -> Grant | None:
    """The grant of the provider of which nothing was heard for longest, where that is since `unheard_since` or longer;
    it counts as asked about from now on, whatever comes of it.

    Only one whose access token should be good, that does not fail, and that lives on without its user: by a refresh
    token, or because it never ends. None that another replica holds at this moment.
    """
    following = (
        select(grants.c.id)
        .where(
            grants.c.provider == provider,
            grants.c.status == Status.ACTIVE,
            grants.c.failures == 0,
            or_(grants.c.refresh_fingerprint.is_not(None), grants.c.expires_at.is_(None)),
            _heard_last <= unheard_since,
            grants.c.sealed_access_token.is_not(None),
            or_(grants.c.expires_at.is_(None), grants.c.expires_at > clock() + _STILL_GOOD_FOR),
            grants.c.attempt_id.is_(None),
        )
        .order_by(_heard_last)
        .limit(1)
        .with_for_update(skip_locked=True)
        .cte("following")
    )
    query = (
        update(grants).where(grants.c.id == following.c.id).values(unasked_since=clock()).returning(*grants.c)
    )
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else to_grant(row._mapping)


async def standing(tx: Tx, provider: str) -> Standing:
    """How the provider stands, for whoever is going to `stand` it anew: others wait."""
    turns = validation_turns.c
    query = select(turns.denials, turns.silences).where(turns.provider == provider).with_for_update()
    return Standing(*(await tx.execute(query)).one())


async def stand(tx: Tx, provider: str, now_at: Standing, *, rest: timedelta | None = None) -> None:
    """Notes how the provider stands, and puts its next turn off where it is to have a `rest`."""
    later = {} if rest is None else {"next_at": func.greatest(validation_turns.c.next_at, clock() + rest)}
    await tx.execute(
        update(validation_turns)
        .where(validation_turns.c.provider == provider)
        .values(denials=now_at.denials, silences=now_at.silences, **later)
    )


async def note_valid(tx: Tx, grant: Grant) -> None:
    """The provider was asked just now, and the token works."""
    await store.note_validation(tx, grant.id)
    await tx.execute(
        update(grants)
        .where(grants.c.id == grant.id, grants.c.denied_generation.is_not(None))
        .values(denied_generation=None)
    )


async def was_denied(tx: Tx, grant: Grant) -> bool:
    """Whether the same access token was denied at the question before this one."""
    query = select(grants.c.denied_generation).where(grants.c.id == grant.id)
    return bool((await tx.execute(query)).scalar_one() == grant.generation)


async def note_denied(tx: Tx, grant: Grant, *, unasked_since: datetime) -> None:
    """Its token was denied; it is asked about again as if nobody had since `unasked_since`."""
    await tx.execute(
        update(grants)
        .where(grants.c.id == grant.id, grants.c.generation == grant.generation)
        .values(denied_generation=grant.generation, unasked_since=unasked_since)
    )


async def end(tx: Tx, grant: Grant, *, reason: str) -> bool:
    """Marks a grant that nothing can refresh as one to be connected again; False where it was changed meanwhile."""
    query = (
        update(grants)
        .where(
            grants.c.id == grant.id,
            grants.c.status == Status.ACTIVE,
            grants.c.lineage_id == grant.lineage_id,
            grants.c.generation == grant.generation,
            grants.c.refresh_fingerprint.is_(None),
        )
        .values(status=Status.RECONNECT_REQUIRED, reconnect_reason=reason, updated_at=clock())
        .returning(literal(1))
    )
    return (await tx.execute(query)).first() is not None
