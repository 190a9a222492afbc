"""Behind PgBouncer in transaction mode: the same service, over four connections that belong to nobody for long."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest

from app.clock import SystemClock
from app.db import Database
from app.listener import GRANT_CHANGED, Listener
from app.sandbox.server import Sandbox
from app.settings import Settings
from tests.broker import ADMIN_KEY, ENCRYPTION_KEYS, Broker, bring, settings_for
from tests.faults.pooler import NEEDED, PROGRAM, Pooler
from tests.postgres import database

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=NEEDED)

USERS = [f"user-{number}" for number in range(40)]
CONNECTIONS = 4


@pytest.fixture
async def pooler(database_url: str, shared_dir: Path) -> AsyncIterator[Pooler]:
    """In front of the test's database."""
    folder = shared_dir / f"pooler-{uuid4().hex}"
    folder.mkdir(mode=0o755)
    made = Pooler(folder, database_url, size=CONNECTIONS)
    await made.start()
    yield made
    made.kill()


@pytest.fixture
def settings(database_url: str, pooler: Pooler, providers_dir: Path, tmp_path: Path) -> Settings:
    return settings_for(
        pooler.url, providers_dir, data_dir=tmp_path / "var", listen_database_url=database_url
    )


@pytest.fixture
async def broker(settings: Settings) -> AsyncIterator[Broker]:
    async with Broker.running(settings) as running:
        yield running


@pytest.fixture
async def twin(settings: Settings, broker: Broker) -> AsyncIterator[Broker]:
    async with Broker.running(settings) as running:
        yield running


async def until(holds: Callable[[], Awaitable[bool]], *, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.02)


async def all_of(calls: list[Awaitable[httpx.Response]]) -> Counter[int]:
    """How often each status was answered, all asked at once."""
    return Counter(answer.status_code for answer in await asyncio.gather(*calls))


async def test_two_replicas_do_all_they_do_over_four_connections(
    broker: Broker, twin: Broker, sandbox: Sandbox, database_url: str
) -> None:
    both, paths = (broker, twin), [f"sandbox/{user}" for user in USERS]
    granted = [bring(sandbox.grant(user)) for user in USERS]
    put = [
        both[n % 2].http.put(f"/grants/{path}", json=granted[n], timeout=60) for n, path in enumerate(paths)
    ]
    assert await all_of([*put]) == {201: len(USERS)}
    sandbox.control(reset_counters=True, settings={"delay": 0.1})
    fetched = [at.http.get(f"/tokens/{path}", timeout=60) for path in paths for at in both * 2]
    assert await all_of([*fetched]) == {200: 4 * len(USERS)}
    report = sandbox.report()
    assert (report["refreshes"], report["reuse_detected"]) == (len(USERS), 0)
    assert set(report["max_in_flight_by_user"].values()) == {1}
    async with database(database_url) as connection:
        users = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert users <= CONNECTIONS + len(both)  # and who listens
    forced = [
        at.http.post(f"/tokens/{path}/refresh", json={"generation": 2}) for path in paths for at in both
    ]
    assert await all_of([*forced]) == {200: 2 * len(USERS)}
    assert sandbox.report()["refreshes"] == 2 * len(USERS)
    assert await all_of([twin.http.delete(f"/grants/{path}") for path in paths]) == {200: len(USERS)}
    assert await all_of([twin.http.get(f"/tokens/{path}") for path in paths]) == {404: len(USERS)}


async def test_what_one_replica_deletes_the_other_forgets_sooner_than_it_would_by_itself(
    broker: Broker, twin: Broker, sandbox: Sandbox
) -> None:
    async def is_gone() -> bool:
        return (await twin.http.get("/tokens/sandbox/ada")).status_code == 404

    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    await twin.token("sandbox/ada")
    assert (await broker.http.delete("/grants/sandbox/ada")).status_code == 200
    await until(is_gone, seconds=4)


async def test_a_listener_hears_what_is_announced_through_the_pooler(
    pooler: Pooler, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    db = Database(pooler.url, direct_url=database_url)
    listener = Listener(pooler.url, SystemClock(), direct_url=database_url)
    box = listener.mailbox(GRANT_CHANGED)
    listener.start()
    try:
        async with asyncio.timeout(10):
            await box.wait()  # it listens
            box.take()
            await db.notify(GRANT_CHANGED, "one")
            await box.wait()
        assert box.take() == (["one"], False)
        assert "listener.pooled" not in caplog.text
    finally:
        await listener.stop()
        await db.close()


async def test_a_listener_that_has_to_go_through_the_pooler_says_that_it_hears_nothing(
    pooler: Pooler, caplog: pytest.LogCaptureFixture
) -> None:
    async def is_said() -> bool:
        return "BROKER_LISTEN_DATABASE_URL should be a direct connection" in caplog.text

    listener = Listener(pooler.url, SystemClock())
    listener.start()
    try:
        await until(is_said, seconds=10)
    finally:
        await listener.stop()


async def test_a_pooler_that_is_away_is_no_steady_postgresql_however_well_that_is(
    pooler: Pooler, database_url: str
) -> None:
    async def is_listening() -> bool:
        return listener.is_listening

    async def is_unsteady() -> bool:
        return listener.steady_seconds == 0

    listener = Listener(pooler.url, SystemClock(), direct_url=database_url)
    listener.start()
    try:
        await until(is_listening, seconds=10)
        pooler.kill()
        await until(is_unsteady, seconds=5)
        await pooler.start()
        await until(is_listening, seconds=10)
    finally:
        await listener.stop()


async def test_while_the_pooler_is_away_known_tokens_are_answered_and_others_are_to_be_asked_for_later(
    broker: Broker, pooler: Pooler, sandbox: Sandbox
) -> None:
    async def is_well() -> bool:
        answer = await broker.http.get("/tokens/sandbox/eve")
        return answer.status_code == 200 and answer.json()["degraded"] is None

    for user in ("ada", "eve"):
        await broker.put(f"sandbox/{user}", bring(sandbox.grant(user), expires_in=3600))
    before = await broker.token("sandbox/ada")
    pooler.kill()
    async with asyncio.timeout(20):
        while (answer := await broker.http.get("/tokens/sandbox/ada")).json()["degraded"] is None:
            assert answer.status_code == 200
            await asyncio.sleep(0.05)
    assert answer.json()["degraded"] == "database_unavailable"
    assert answer.json()["access_token"] == before["access_token"]
    unknown = await broker.http.get("/tokens/sandbox/eve")
    assert (unknown.status_code, unknown.json()["code"]) == (503, "overloaded")
    assert int(unknown.headers["Retry-After"]) >= 1
    assert (await broker.http.get("/health-check")).status_code == 503
    await pooler.start()
    await until(is_well, seconds=20)
    refreshed = await broker.http.post("/tokens/sandbox/ada/refresh", json={"generation": 1})
    assert (refreshed.status_code, refreshed.json()["generation"]) == (200, 2)


async def test_the_schema_is_made_past_the_pooler_and_commands_work_through_it(
    pooler: Pooler, empty_database_url: str, tmp_path: Path
) -> None:
    name = urlsplit(empty_database_url).path
    settings = {
        "BROKER_DATABASE_URL": urlsplit(pooler.url)._replace(path=name).geturl(),
        "BROKER_LISTEN_DATABASE_URL": empty_database_url,
        "BROKER_MIGRATE_DATABASE_URL": empty_database_url,
        "BROKER_ENVIRONMENT": "development",
        "BROKER_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
        "BROKER_ADMIN_KEY": ADMIN_KEY,
        "BROKER_DATA_DIR": str(tmp_path),
    }

    async def said(*command: str) -> str:
        finished = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "app.cli", *command],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        return str(finished.stdout)

    pooler.kill()
    await said("migrate")
    await pooler.start()
    await said("keys", "create", "reports", "--scope", "tokens:read")
    assert "reports" in await said("keys", "list")
