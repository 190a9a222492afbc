"""What is asked of PostgreSQL, and how it would find the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

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
