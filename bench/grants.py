"""Grants for what is measured, put into PostgreSQL past the service, sealed as it seals them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg

from tests.backlog import bring_due
from tests.vault import loaded_vault

PROVIDER = "graced"  # its refresh tokens rotate, and 64 refreshes may be under way at once


def bring_fresh(url: str, users: Sequence[str]) -> None:
    """A grant for each, whose token is good for twenty days, and not due for ten."""
    asyncio.run(_bring(url, users))
    asyncio.run(
        execute(
            url,
            "UPDATE grants SET expires_at = now() + interval '20 days', next_refresh_at = now() + interval '10 days'"
            " WHERE generation = 1",
            "VACUUM ANALYZE grants",
            "CHECKPOINT",
        )
    )


def bring_due_ones(url: str, users: Sequence[str]) -> None:
    """A grant for each, all due, each good for another 20 minutes."""
    asyncio.run(_bring(url, users))


def fetched(url: str, query: str) -> int:
    """The one number that the query answers."""
    return asyncio.run(_fetched(url, query))


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def _bring(url: str, users: Sequence[str]) -> None:
    await bring_due(
        url, await loaded_vault(url.replace("postgresql:", "postgresql+asyncpg:")), PROVIDER, users
    )


async def _fetched(url: str, query: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval(query))
    finally:
        await connection.close()
