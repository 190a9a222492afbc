"""Databases with any number of grants, in one PostgreSQL of their own."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import asyncpg

from app import embedded, embedded_role
from app.clock import SystemClock
from app.db import Database
from app.grants.seeding import Seeder
from app.oauth.client import OAuthClient
from app.oauth.load import load_catalogue
from tests.vault import keeping, keys_of_tests

PROVIDER = "google"  # nobody is registered there, so that nothing is refreshed while it is measured
USERS = "user-"
DUE = 0.05


@dataclass(frozen=True)
class Seeded:
    """A database and its URLs: as the service's role has it, and as the owner of its tables does."""

    grants: int
    url: str
    owner_url: str


@contextmanager
def postgres() -> Iterator[tuple[str, Path]]:
    """The URL of a server that commits to the disk, and a folder that goes with it."""
    with tempfile.TemporaryDirectory(prefix="broker-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL's own user has to pass
        # A checkpoint in the middle of it would hit one database more than the others.
        settings: Mapping[str, str] = {
            "shared_buffers": "1GB",
            "max_wal_size": "8GB",
            "checkpoint_timeout": "1h",
        }
        with embedded.running(folder / "postgres", settings=settings) as url:
            yield url, folder


def seeded(server_url: str, grants: int) -> Seeded:
    """A new database with that many grants, as VACUUM ANALYZE leaves it."""
    name = f"grants_{grants}"
    asyncio.run(execute(server_url, f"CREATE DATABASE {name}"))
    owner_url = f"{server_url.rpartition('/')[0]}/{name}"
    made = Seeded(grants, embedded_role.service_url(owner_url), owner_url)
    asyncio.run(_fill(made))
    return made


async def _fill(made: Seeded) -> None:
    began = time.monotonic()
    db = Database(made.url, migrate_url=made.owner_url, pool_size=1)
    try:
        await db.migrate()
        client = OAuthClient(PROVIDER, load_catalogue()[PROVIDER])
        async with keeping(made.url, keys_of_tests()) as (vault, _):
            seeder = Seeder(db, vault, SystemClock(), margin=timedelta(minutes=5))
            async for _ in seeder.seed(client, count=made.grants, users=USERS, due=DUE):
                pass
    finally:
        await db.close()
    await execute(made.owner_url, "VACUUM ANALYZE")
    await execute(made.owner_url, "CHECKPOINT")
    say(f"{made.grants:,} grants seeded in {time.monotonic() - began:.0f} s")


async def execute(url: str, statement: str) -> None:
    """One statement, outside a transaction."""
    connection = await asyncpg.connect(plain(url))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def plain(url: str) -> str:
    return url.replace("+asyncpg", "")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
