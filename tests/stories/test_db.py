"""PostgreSQL away, slow or read-only: named, waited for, and never taken for a mistake of the caller's."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from app.clock import SystemClock
from app.db import Database, insist
from app.outages import DatabaseUnavailable
from tests.broker import ENCRYPTION_KEYS, free_port

NOWHERE = "postgresql+asyncpg://nobody:s3cret@127.0.0.1:1/none"


async def test_a_server_that_is_away_is_named() -> None:
    db = Database(NOWHERE)
    for ask in (db.ping, db.migrate, lambda: db.notify("channel", "x")):
        with pytest.raises(DatabaseUnavailable):
            await ask()
    await db.close()


async def test_a_read_only_server_is_an_outage_since_another_one_will_take_over(database_url: str) -> None:
    db = Database(database_url)
    with pytest.raises(DatabaseUnavailable):
        async with db.begin() as tx:
            await tx.execute(text("SET TRANSACTION READ ONLY"))
            await tx.execute(text("CREATE TABLE x ()"))
    await db.close()


async def test_a_mistake_in_sql_is_no_outage(database_url: str) -> None:
    db = Database(database_url)
    with pytest.raises(Exception, match="does_not_exist"):
        async with db.begin() as tx:
            await tx.execute(text("SELECT * FROM does_not_exist"))
    await db.close()


async def test_options_of_the_url_are_read_as_postgresql_reads_them(database_url: str) -> None:
    db = Database(f"{database_url}?sslmode=prefer&application_name=broker")
    async with db.begin() as tx:
        assert (await tx.execute(text("SHOW application_name"))).scalar_one() == "broker"
    await db.close()


async def test_insisting_ends_when_its_time_is_over_however_slow_a_try_is() -> None:
    async def hangs() -> None:
        await asyncio.sleep(30)

    async with asyncio.timeout(1):
        with pytest.raises(DatabaseUnavailable):
            await insist(hangs, clock=SystemClock(), within=timedelta(seconds=0.2))


async def test_insisting_answers_as_soon_as_a_try_succeeds() -> None:
    tries = iter([DatabaseUnavailable(), DatabaseUnavailable(), None])

    async def recovers() -> str:
        if error := next(tries):
            raise error
        return "done"

    assert await insist(recovers, clock=SystemClock(), within=timedelta(seconds=5)) == "done"


@pytest.mark.parametrize("command", [["serve"], ["migrate"], ["keys", "list"]], ids=" ".join)
def test_a_command_without_its_database_says_so_in_a_sentence(command: list[str], tmp_path: Path) -> None:
    settings = {
        "BROKER_DATABASE_URL": NOWHERE,
        "BROKER_ENVIRONMENT": "development",
        "BROKER_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
        "BROKER_PORT": str(free_port()),
        "BROKER_DATA_DIR": str(tmp_path),
    }
    finished = subprocess.run(
        [sys.executable, "-m", "app.cli", *command],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert finished.returncode == 1
    assert "broker: PostgreSQL cannot be reached at BROKER_DATABASE_URL" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert "s3cret" not in finished.stderr


def test_a_taken_port_is_said_in_a_sentence(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "app.cli", "serve"],
        env={
            **os.environ,
            "BROKER_PORT": "1",
            "BROKER_HOST": "203.0.113.1",
            "BROKER_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
            "BROKER_DATA_DIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (finished.returncode, "BROKER_PORT: 203.0.113.1:1 cannot be listened on" in finished.stderr) == (
        2,
        True,
    )
