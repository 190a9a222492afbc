"""What is asked of PostgreSQL, and how it would find the answer."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import Engine

from app.statements import Prepared
from tests.postgres import database


@contextmanager
def statements() -> Iterator[list[tuple[str, tuple[Any, ...]]]]:
    """What is asked of PostgreSQL meanwhile, with its parameters."""
    asked: list[tuple[str, tuple[Any, ...]]] = []

    def listen(*arguments: Any) -> None:
        asked.append((arguments[2], arguments[3]))

    def noted(statement: Prepared, values: Mapping[str, Any]) -> list[Any]:
        asked.append((statement.text, tuple(given(statement, values))))
        return given(statement, values)

    given = Prepared.arguments
    event.listen(Engine, "before_cursor_execute", listen)
    Prepared.arguments = noted  # type: ignore[method-assign, assignment]
    try:
        yield asked
    finally:
        event.remove(Engine, "before_cursor_execute", listen)
        Prepared.arguments = given  # type: ignore[method-assign]


async def explained(url: str, statement: str, parameters: tuple[Any, ...], *, mode: str = "auto") -> str:
    """The plan, as text. `mode`: of `plan_cache_mode`."""
    async with database(url) as connection:
        await connection.execute(f"SET plan_cache_mode = {mode}")
        return "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {statement}", *parameters))


async def generic_plan(connection: asyncpg.Connection, statement: str, parameters: int) -> dict[str, Any]:
    """How PostgreSQL would go about it for any parameters, of which there are so many."""
    nothing = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
    await connection.execute(f"SET plan_cache_mode = force_generic_plan; PREPARE asked AS {statement}")
    [[plan]] = await connection.fetch(f"EXPLAIN (FORMAT JSON) EXECUTE asked {nothing}")
    await connection.execute("DEALLOCATE asked; RESET plan_cache_mode")
    return dict(json.loads(plan)[0]["Plan"])


async def done_once_more(
    connection: asyncpg.Connection, statement: str, parameters: Sequence[Any]
) -> dict[str, Any] | None:
    """How PostgreSQL went about it for these parameters, undone; None where it cannot be done twice."""
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, encoder=_as_json, decoder=str, schema="pg_catalog")
    transaction = connection.transaction()
    await transaction.start()
    try:
        [[plan]] = await connection.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *parameters)
    except asyncpg.IntegrityConstraintViolationError:
        return None
    finally:
        await transaction.rollback()
        for name in ("json", "jsonb"):
            await connection.reset_type_codec(name, schema="pg_catalog")
    return dict(json.loads(plan)[0]["Plan"])


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The plan's nodes, the root first."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def rows_read(plan: dict[str, Any], tables: Collection[str]) -> int:
    """Of these tables, whether or not they were of use."""
    return sum(
        round((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
        for node in nodes(plan)
        if node.get("Relation Name") in tables
    )


def _as_json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
