"""PgBouncer in front of a PostgreSQL, in transaction mode: every transaction may run on another of a few connections."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from app.embedded_host import account_for, answers
from tests.faults.machine import Unavailable
from tests.faults.postgres import Postgres
from tests.faults.processes import Process, own_port, until
from tests.faults.supervisor import World
from tests.faults.trial import Outcome, Size, Trial

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
NEEDED = "needs PgBouncer: apt-get install pgbouncer"
_CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server.port} user={server.username} {password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 500
server_round_robin = 1
server_login_retry = 1
log_connections = 0
log_disconnections = 0
"""


class Pooler:
    """Whoever reaches its port is connected to the server at `url` by that URL's user, over `size` connections at most."""

    def __init__(self, folder: Path, url: str, *, size: int = 4) -> None:
        assert PROGRAM is not None, NEEDED
        server = urlsplit(url)
        self.port = own_port()
        self.url = f"postgresql://broker@127.0.0.1:{self.port}{server.path}"
        self._configuration = folder / "pgbouncer.ini"
        self._text = _CONFIGURATION.format(
            server=server,
            password=f"password={server.password}" if server.password else "",
            port=self.port,
            size=size,
        )
        self._account = account_for(folder / "none")
        self._process = Process(
            [PROGRAM, str(self._configuration)],
            folder / "pgbouncer.log",
            environment={"PATH": os.environ["PATH"]},
            uid=self._account.uid if self._account else None,
        )

    async def start(self) -> None:
        """Takes connections when this returns."""
        self._configuration.touch(mode=0o600)  # it holds the password
        self._configuration.write_text(self._text)
        if self._account:
            os.chown(self._configuration, *self._account)
        self._process.start()
        await until(lambda: answers(self.port), seconds=10, what="PgBouncer answers")

    @property
    def is_running(self) -> bool:
        return self._process.is_running

    @property
    def pid(self) -> int:
        return self._process.pid

    def pause(self) -> None:
        """Connections stay, and nothing comes through."""
        self._process.pause()

    def resume(self) -> None:
        self._process.resume()

    def kill(self) -> None:
        """With all connections through it."""
        if self.is_running:
            self._process.kill()


class PooledPostgres(Postgres):
    """A PostgreSQL that replicas reach through a pooler, and past it only to listen and to migrate."""

    def __init__(self, folder: Path, *, log: Path) -> None:
        super().__init__(folder, log=log)
        self.pooler = Pooler(log.parent, self.url)
        self.settings = {"DATABASE_URL": self.pooler.url, "LISTEN_DATABASE_URL": self.url}

    async def start(self, *, seconds: float = 30) -> None:
        await super().start(seconds=seconds)
        if not self.pooler.is_running:
            await self.pooler.start()

    def pids(self) -> list[int]:
        return [self.pooler.pid, *super().pids()]

    def abandon(self) -> None:
        self.pooler.kill()
        super().abandon()


async def behind_pooler(seed: int, size: Size) -> Outcome:
    """kill -9 of PostgreSQL behind the pooler, and of the pooler, in turn."""
    async with _world() as (world, pooler):
        trial = await Trial.of("behind pgbouncer", world, seed, size)
        async with trial.under_load():
            for number in range(size.faults):
                if number % 2:
                    await _away(pooler, trial, 0.1, 1.5)
                else:
                    world.postgres.crash()
                    await trial.rest(0.1, 1.5)
                    await world.postgres.start()
                await trial.rest(2.0, 3.0)
        return await trial.end(crashes=size.faults)


async def pooler_away(seed: int, size: Size) -> Outcome:
    """The pooler is gone, or hangs, for longer than claims are held; PostgreSQL is well and says so to who listens."""
    times = max(1, size.faults // 2)
    async with _world() as (world, pooler):
        trial = await Trial.of("pgbouncer away", world, seed, size)
        async with trial.under_load():
            for number in range(times):
                if number % 2:
                    pooler.pause()
                    await trial.rest(26.0, 28.0)
                    pooler.resume()
                else:
                    await _away(pooler, trial, 26.0, 28.0)
                await trial.rest(2.0, 3.0)
        return await trial.end(crashes=times)


@asynccontextmanager
async def _world() -> AsyncIterator[tuple[World, Pooler]]:
    """Raises Unavailable."""
    if PROGRAM is None:
        raise Unavailable(NEEDED)
    async with World.running(storage=PooledPostgres, delay=0.2) as world:
        assert isinstance(world.postgres, PooledPostgres)
        yield world, world.postgres.pooler


async def _away(pooler: Pooler, trial: Trial, least: float, most: float) -> None:
    pooler.kill()
    await trial.rest(least, most)
    await pooler.start()
