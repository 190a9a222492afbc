"""The time is PostgreSQL's: a replica whose own clock is two hours off judges nothing wrongly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from app.clock import DatabaseClock
from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, Broker, Replica, Replicas, bring

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
needs_faketime = pytest.mark.skipif(LIBRARY is None, reason="needs libfaketime: apt-get install faketime")
HOUR = timedelta(hours=1)


def mistimed(replicas: Replicas, offset: str) -> Replica:
    """A replica whose wall clock is off, and whose monotonic clock runs as it should."""
    wrong = {"LD_PRELOAD": str(LIBRARY), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    return replicas.start(environment=wrong)


@asynccontextmanager
async def calling(replica: Replica) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with httpx.AsyncClient(base_url=replica.url, headers=headers, timeout=30) as http:
        yield http


def test_until_it_is_set_it_is_the_machines() -> None:
    assert abs(DatabaseClock().now() - datetime.now(UTC)) < HOUR


def test_once_it_is_set_it_goes_on_from_there() -> None:
    clock, new_year = DatabaseClock(), datetime(2030, 1, 1, tzinfo=UTC)
    clock.set(new_year, at=clock.monotonic() - 60)
    assert timedelta(seconds=60) <= clock.now() - new_year < timedelta(seconds=70)


async def test_a_replica_is_set_by_postgresql_at_its_start(broker: Broker) -> None:
    clock = broker.services.clock
    assert isinstance(clock, DatabaseClock)
    clock.set(datetime(2030, 1, 1, tzinfo=UTC), at=clock.monotonic())
    await broker.services.db.set_clock(clock)
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)


@needs_faketime
@pytest.mark.parametrize("offset", ["+2h", "-2h"])
async def test_a_replica_whose_clock_is_wrong_judges_as_the_others_do(
    replicas: Replicas, sandbox: Sandbox, offset: str
) -> None:
    right, wrong = replicas.start(), mistimed(replicas, offset)
    async with calling(right) as one, calling(wrong) as other:
        valid = (
            await one.put("/grants/sandbox/ada", json=bring(sandbox.grant("ada"), expires_in=3600))
        ).json()
        await one.put("/grants/sandbox/eve", json=bring(sandbox.grant("eve")))
        told = (await other.get("/tokens/sandbox/ada")).json()
        assert (told["generation"], told["refreshed"], told["expires_at"]) == (1, False, valid["expires_at"])
        assert 3500 < told["expires_in"] <= 3600
        assert (await other.get("/tokens/sandbox/eve")).json()["generation"] == 2
        again = (await one.get("/tokens/sandbox/eve")).json()
        assert (again["generation"], again["refreshed"]) == (2, False)
        stamp = datetime.fromisoformat((await other.get("/health-check")).json()["timestamp"])
        assert abs(stamp - datetime.now(UTC)) < timedelta(seconds=30)
    assert sandbox.report()["refreshes"] == 1
