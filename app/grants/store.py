"""The SQL of grants: found, added, replaced, revoked. `refresh_store` has that of refreshing them.

Each function takes the transaction first, and none commits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from sys import intern
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import ColumnElement, DateTime, and_, cast, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert

from app.db import Tx
from app.grants.grant import Grant, GrantKey, LeanGrant, Status
from app.grants.selection import Selection
from app.tables import grants

Given = str | ColumnElement[Any]
# Written into statements: of a parameter PostgreSQL cannot know that the partial index has all there is.
_NOT_REVOKED = grants.c.status != literal(Status.REVOKED, literal_execute=True)
NO_DOUBT: dict[str, Any] = {"may_be_spent": False, "refused_at": None, "probe_at": None}
NO_CLAIM: dict[str, None] = {"attempt_id": None, "owner": None, "lease_until": None, "takeover_at": None}


def clock() -> ColumnElement[datetime]:
    """PostgreSQL's time: the one that leases are judged on."""
    return func.clock_timestamp(type_=DateTime(timezone=True))


def began() -> ColumnElement[datetime]:
    """PostgreSQL's time when the statement began: the same for all of its rows, so that an index can be searched by it."""
    return func.statement_timestamp(type_=DateTime(timezone=True))


def _fields_of(noun: type[LeanGrant]) -> list[str]:
    return [column.name for column in grants.c if column.name in noun.__dataclass_fields__]


_FIELDS, _LEAN_FIELDS = _fields_of(Grant), [*_fields_of(LeanGrant), "has_refresh_token"]
# What `to_lean` wants of a row.
LEAN = (
    *(grants.c[name] for name in ("provider", "user_id", "account", "issued_ttl_seconds")),
    *(grants.c[name] for name in _fields_of(LeanGrant)),
    grants.c.sealed_refresh_token.is_not(None).label("has_refresh_token"),
)


def to_grant(row: Mapping[Any, Any] | asyncpg.Record) -> Grant:
    """A row of `grants`, by column name, as the noun."""
    return Grant(**{name: row[name] for name in _FIELDS} | _converted(row, None))


def to_lean(row: asyncpg.Record, key: GrantKey | None = None) -> LeanGrant:
    """The same of `LEAN`; `key` is what it was found by, if it was."""
    return LeanGrant(**{name: row[name] for name in _LEAN_FIELDS} | _converted(row, key))


def _converted(row: Mapping[Any, Any] | asyncpg.Record, key: GrantKey | None) -> dict[str, Any]:
    """Many are remembered, so that what is the same in most of them is there once."""
    issued, scope = row["issued_ttl_seconds"], row["scope"]
    return {
        "key": key or GrantKey(intern(row["provider"]), row["user_id"], intern(row["account"])),
        "status": Status(row["status"]),
        "token_type": intern(row["token_type"]),
        "scope": None if scope is None else intern(scope),
        "issued_ttl": None if issued is None else timedelta(seconds=issued),
    }


def at_key(provider: Given, user_id: Given, account: Given) -> ColumnElement[bool]:
    """The grant of that name that is not revoked."""
    return and_(
        grants.c.provider == provider,
        grants.c.user_id == user_id,
        grants.c.account == account,
        _NOT_REVOKED,
    )


async def find(tx: Tx, key: GrantKey, *, lock: bool = False) -> Grant | None:
    """The grant that is not revoked, if there is one; with `lock` nobody else changes it in this transaction."""
    query = select(grants).where(at_key(key.provider, key.user_id, key.account))
    row = (await tx.execute(query.with_for_update() if lock else query)).one_or_none()
    return None if row is None else to_grant(row._mapping)


async def find_by_id(tx: Tx, grant_id: UUID) -> Grant | None:
    """The grant, revoked or not."""
    row = (await tx.execute(select(grants).where(grants.c.id == grant_id))).one_or_none()
    return None if row is None else to_grant(row._mapping)


async def listed(tx: Tx, wanted: Selection, *, after: UUID | None, limit: int) -> list[Grant]:
    """Up to `limit` grants that are not revoked, in the order of their making, behind the one called `after`."""
    query = select(grants).where(_NOT_REVOKED, *_conditions(wanted))
    if after is not None:
        query = query.where(grants.c.id > after)
    rows = await tx.execute(query.order_by(grants.c.id).limit(limit))
    return [to_grant(row._mapping) for row in rows]


def _conditions(wanted: Selection) -> Iterator[ColumnElement[bool]]:
    for column in ("provider", "user_id", "status"):
        value = getattr(wanted, column)
        if value is not None:
            yield grants.c[column] == value
    if wanted.expires_before is not None:
        yield grants.c.expires_at < wanted.expires_before
    if wanted.visible_providers is not None:
        yield grants.c.provider.in_(wanted.visible_providers)
    if wanted.visible_users is not None:
        exact = [name for name in wanted.visible_users if not name.endswith("*")]
        prefixes = [name[:-1] for name in wanted.visible_users if name.endswith("*")]
        yield or_(
            grants.c.user_id.in_(exact),
            *(func.starts_with(grants.c.user_id, prefix) for prefix in prefixes),
        )


async def add(tx: Tx, values: Mapping[str, Any]) -> Grant | None:
    """A new row; None where another request has just taken its key."""
    query = upsert(grants).values(**values).on_conflict_do_nothing().returning(*grants.c)
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else to_grant(row._mapping)


async def replace(tx: Tx, grant_id: UUID, values: Mapping[str, Any]) -> Grant:
    """New tokens from outside the refresh: whatever attempt was running has lost its claim."""
    query = (
        update(grants)
        .where(grants.c.id == grant_id, _NOT_REVOKED)
        .values(
            {
                **NO_CLAIM,
                **NO_DOUBT,
                "failures": 0,
                "last_error": None,
                "last_error_at": None,
                "updated_at": clock(),
                **values,
            }
        )
        .returning(*grants.c)
    )
    return to_grant((await tx.execute(query)).one()._mapping)


async def note_validation(tx: Tx, grant_id: UUID) -> None:
    """Remembers that the provider was asked just now."""
    await tx.execute(update(grants).where(grants.c.id == grant_id).values(last_validated_at=clock()))


async def note_uses(tx: Tx, uses: Mapping[UUID, datetime]) -> set[UUID]:
    """Moves `last_used_at` on, never back, and touches nothing else. Waits for no lock: answers the ids of those
    grants that others hold at this moment, which are left as they were."""
    ids, times = grants.c.id.type, grants.c.last_used_at.type
    given = func.unnest(cast(list(uses), ARRAY(ids)), cast(list(uses.values()), ARRAY(times)))
    rows = given.table_valued("id", "at", name="given").render_derived()
    noted = select(rows.c.id, rows.c.at).cte("noted")
    free = (
        select(grants.c.id)
        .join(noted, noted.c.id == grants.c.id)
        .order_by(grants.c.id)
        .with_for_update(of=grants, key_share=True, skip_locked=True)
        .cte("free")
    )
    written = (
        update(grants)
        .where(grants.c.id == free.c.id, noted.c.id == grants.c.id)
        .values(last_used_at=func.greatest(grants.c.last_used_at, noted.c.at))
        .returning(grants.c.id)
        .cte("written")
    )
    held = (
        select(grants.c.id)
        .join(noted, noted.c.id == grants.c.id)
        .where(grants.c.id.not_in(select(free.c.id)))
    )
    return set(await tx.scalars(held.add_cte(written)))


async def revoke(tx: Tx, grant_id: UUID) -> None:
    """Leaves a tombstone: without secrets, and without what callers and providers have said of the grant."""
    await tx.execute(
        update(grants)
        .where(grants.c.id == grant_id)
        .values(
            **NO_CLAIM,
            **NO_DOUBT,
            status=Status.REVOKED,
            reconnect_reason=None,
            sealed_access_token=None,
            sealed_refresh_token=None,
            refresh_fingerprint=None,
            scope=None,
            metadata={},
            last_error=None,
            last_error_at=None,
            next_refresh_at=None,
            updated_at=clock(),
        )
    )


async def is_held_elsewhere(tx: Tx, fingerprint: bytes, *, provider: str, grant_id: UUID | None) -> bool:
    """Whether another active grant of the provider has this refresh token. Writers of one token take turns."""
    await tx.execute(select(func.pg_advisory_xact_lock(int.from_bytes(fingerprint[:8], "big", signed=True))))
    query = select(literal(1)).where(
        grants.c.provider == provider,
        grants.c.refresh_fingerprint == fingerprint,
        grants.c.status == Status.ACTIVE,
        *(() if grant_id is None else (grants.c.id != grant_id,)),
    )
    return (await tx.execute(query.limit(1))).first() is not None
