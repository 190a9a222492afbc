"""What is asked of PostgreSQL, and how it would find the answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.postgres import database


@contextmanager
def statements() -> Iterator[list[tuple[str, tuple[Any, ...]]]]:
    """What is asked of PostgreSQL meanwhile, with its parameters."""
    asked: list[tuple[str, tuple[Any, ...]]] = []

    def listen(*arguments: Any) -> None:
        asked.append((arguments[2], arguments[3]))

    event.listen(Engine, "before_cursor_execute", listen)
    try:
        yield asked
    finally:
        event.remove(Engine, "before_cursor_execute", listen)


async def explained(url: str, statement: str, parameters: tuple[Any, ...], *, mode: str = "auto") -> str:
    """The plan, as text. `mode`: of `plan_cache_mode`."""
    async with database(url) as connection:
        await connection.execute(f"SET plan_cache_mode = {mode}")
        return "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {statement}", *parameters))
