"""What tests share: one PostgreSQL for the run, a database for each test, the sandbox, the broker in process and as
processes of its own."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import structlog

from app import embedded, embedded_role
from app.db import Database
from app.sandbox import server as sandbox_server
from tests.broker import Broker, Replicas, settings_for, write_providers
from tests.postgres import OWNER, Postgres

_SHARED = "TESTS_SHARED_DIR"
_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 6 << 30
# Nothing in a test has to survive a crash of the machine.
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def pytest_configure(config: pytest.Config) -> None:
    """One folder for all workers of this run; the controller makes it and takes it away."""
    for name in [name for name in os.environ if name.startswith("BROKER_")]:
        del os.environ[name]
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    if not hasattr(config, "workerinput"):
        os.environ[_SHARED] = tempfile.mkdtemp(prefix="broker-tests-", dir=_roomy_memory())
        os.chmod(os.environ[_SHARED], 0o755)  # PostgreSQL's own user has to reach it


def _roomy_memory() -> Path | None:
    """A file system in memory, if there is one with room: on a disk thousands of databases, made and dropped, take ten times
    as long after a while."""
    with suppress(OSError):
        if shutil.disk_usage(_MEMORY).free >= _ROOM_BYTES:
            return _MEMORY
    return None


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ[_SHARED], ignore_errors=True)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    return Path(os.environ[_SHARED])


@pytest.fixture(scope="session")
async def server_url(shared_dir: Path) -> AsyncIterator[str]:
    """A PostgreSQL with a migrated database `template`, shared by all workers."""
    with embedded.running(shared_dir / "postgres", settings=_FAST) as url:
        with (shared_dir / "template.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.environ[OWNER] = url
            if not (shared_dir / "template.made").exists():
                await _execute(url, "CREATE DATABASE template")
                service = await asyncio.to_thread(embedded_role.service_url, _at(url, "template"))
                db = Database(service, migrate_url=_at(url, "template"), pool_size=1)
                await db.migrate()
                await db.close()
                (shared_dir / "template.made").touch()
        yield url


@pytest.fixture
async def database_url(server_url: str) -> AsyncIterator[str]:
    """A migrated database of the test's own, as the service's role has it: without a right that it does not need."""
    name = f"test_{uuid4().hex}"
    await _execute(server_url, f"CREATE DATABASE {name} TEMPLATE template STRATEGY file_copy")
    yield await asyncio.to_thread(embedded_role.service_url, _at(server_url, name))
    await _execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def empty_database_url(server_url: str) -> AsyncIterator[str]:
    """A database without a table."""
    name = f"test_{uuid4().hex}"
    await _execute(server_url, f"CREATE DATABASE {name}")
    yield _at(server_url, name)
    await _execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def sandbox() -> AsyncIterator[sandbox_server.Sandbox]:
    async with sandbox_server.running() as running:
        yield running


@pytest.fixture
def providers_dir(tmp_path: Path, sandbox: sandbox_server.Sandbox) -> Path:
    """Catalogue files for the sandbox: `sandbox` (strict), `graced` and `keeps` (never rotates)."""
    return write_providers(tmp_path / "providers", sandbox.url)


@pytest.fixture
async def broker(database_url: str, providers_dir: Path, tmp_path: Path) -> AsyncIterator[Broker]:
    """The broker in this process, reached over ASGI."""
    settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var")
    async with Broker.running(settings) as running:
        yield running


@pytest.fixture
async def twin(
    broker: Broker, database_url: str, providers_dir: Path, tmp_path: Path
) -> AsyncIterator[Broker]:
    """Another replica on the database of `broker`."""
    settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var")
    async with Broker.running(settings) as running:
        yield running


@pytest.fixture
def replicas(database_url: str, providers_dir: Path, tmp_path: Path) -> Iterator[Replicas]:
    """Starts brokers as processes of their own, all on one database."""
    started = Replicas(database_url, providers_dir, tmp_path)
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture
def postgres(shared_dir: Path, request: pytest.FixtureRequest) -> Iterator[Postgres]:
    folder = shared_dir / f"postgres-{request.node.name}"
    with embedded.running(folder) as url:
        server = Postgres(url, folder)
        try:
            yield server
        finally:
            server.go_on()


def _at(url: str, database: str) -> str:
    return f"{url.rpartition('/')[0]}/{database}"


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
