"""The role that the service has in its private PostgreSQL: it owns nothing there, like the one of a database of one's own
should. The superuser is left to migrations."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from app.privileges import quoted

ROLE = "broker_service"


def service_url(owner_url: str) -> str:
    """The URL for the service, whose role is made where there is none yet. Its password follows from the superuser's."""
    parts = urlsplit(owner_url)
    owner, _, server = parts.netloc.rpartition("@")
    password = hmac.digest(owner.encode(), ROLE.encode(), hashlib.sha256).hex()
    asyncio.run(_ensure_role(urlunsplit(parts._replace(scheme="postgresql")), password))
    return urlunsplit(parts._replace(netloc=f"{ROLE}:{password}@{server}"))


async def _ensure_role(url: str, password: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        if await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", ROLE):
            return
        # Hex digits only, and no statement that takes it as a parameter.
        with suppress(
            asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError
        ):  # somebody else did, just now
            await connection.execute(f"CREATE ROLE {quoted(ROLE)} LOGIN PASSWORD '{password}'")
    finally:
        await connection.close()
