"""The schema: brought up to date beside everybody who works with it, with what the service's role may do in it, and how long
events are kept. How a revision is written is in `app.online`.

migrate   takes turns with other replicas -> each revision by itself, again while a lock is not to be had -> rights
"""

from __future__ import annotations

import asyncio
import random

from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app import privileges, revisions
from app.telemetry import logger

log = logger(__name__)

_TURN = 7_310_482_945_112_406_321  # any constant: every replica asks for the same one
_NOT_TO_BE_HAD = {"55P03", "40P01"}  # a lock in time; and one that its holder has for ours


async def migrate(
    connection: AsyncConnection, revision: str, *, role: str | None, audit_days: int | None
) -> None:
    """Brings the schema to `revision`, gives `role` its rights and says how long events are kept, where there are such. May
    be interrupted at any time, and repeated. The connection is to be direct, and closed afterwards: by that the turn ends."""
    await _take_turn(connection)
    while True:
        try:
            await connection.run_sync(_upgrade, revision)
            async with connection.begin():
                if role is not None:
                    await _give_privileges(connection, role)
                if audit_days is not None and revision == "head":
                    await _set_retention(connection, audit_days)
            return
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _NOT_TO_BE_HAD:
                raise
            await connection.rollback()
            wanted = " ".join((error.statement or "").split())[:100]
            log.info(
                "schema.waits", detail=f"others hold a lock; it is tried again until they do not: {wanted}"
            )
            await asyncio.sleep(random.uniform(0.2, 1.0))  # those who had to wait behind it come first


async def _take_turn(connection: AsyncConnection) -> None:
    """Asked for again and again: whoever waited for it in a statement would be waited for by CREATE INDEX CONCURRENTLY."""
    has_waited = False
    while not await _is_ours(connection):
        if not has_waited:
            log.info("schema.waits", detail="another replica migrates; it is this one's turn then")
        has_waited = True
        await asyncio.sleep(random.uniform(0.1, 0.3))


async def _is_ours(connection: AsyncConnection) -> bool:
    got = await connection.scalar(select(func.pg_try_advisory_lock(_TURN)))
    await connection.commit()
    return bool(got)


async def _give_privileges(tx: AsyncConnection, role: str) -> None:
    """Gives `role` what the service needs, unless it is the one that owns the tables."""
    owner, schema = (await tx.execute(select(func.current_user(), func.current_schema()))).one()
    if role != owner:
        for statement in privileges.statements(role, schema):
            await tx.execute(text(statement))


async def _set_retention(tx: AsyncConnection, days: int) -> None:
    """Says how long audit events are kept, 0 for ever, if this role may; else the log tells of a difference."""
    query = text("SELECT days, has_table_privilege('audit_retention', 'UPDATE') FROM audit_retention")
    present, may_change = (await tx.execute(query)).one()
    if present == days:
        return
    if may_change:
        await tx.execute(text("UPDATE audit_retention SET days = :days"), {"days": days})
    else:
        sentence = (
            f"audit events are kept for {present} days; only a migration by the tables' owner changes that"
        )
        log.warning("settings.retention_not_set", detail=sentence)


def _upgrade(connection: Connection, revision: str) -> None:
    """Goes on from where it is to `revision`; leaves a schema alone that a later release has made."""
    revisions.set_lock_timeout(connection)
    connection.execute(
        text("SET statement_timeout = 0")
    )  # an index takes as long as it takes, whatever the role's says
    known, present = revisions.known(), revisions.present(connection)
    connection.commit()  # Alembic begins a transaction for each revision
    if present is not None and present not in known:
        # A later release was here, and migrations only add: this one starts beside it, or after it was taken back.
        log.warning("schema.newer", detail=f"the schema is at {present}, which this release does not know")
        return
    if present == (known[-1] if revision == "head" else revision):
        return
    from app.upgrade import upgrade  # only now: `app.revisions` says why

    upgrade(connection, revision)
