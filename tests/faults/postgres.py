"""A PostgreSQL of the world's own, durable as in production, that can be killed, stopped and started on its data."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import asyncpg

from app.embedded_host import account_for, answers, binaries_for, run
from tests.faults.processes import Process, children, own_port, signal_all, until

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_keep_size": "64MB",  # what a standby lacks between its copy and its first connection
    "timezone": "UTC",
    "log_checkpoints": "off",
    "log_min_error_statement": "panic",
}


class Storage(Protocol):
    """Where the world's replicas keep what they know: a PostgreSQL, alone or with what stands before or behind it."""

    @property
    def settings(self) -> Mapping[str, str]:
        """What replicas are told of it."""

    @property
    def is_running(self) -> bool: ...

    def create(self) -> None: ...

    async def start(self) -> None: ...

    def pids(self) -> list[int]: ...

    def crash(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def abandon(self) -> None: ...

    async def query(self, sql: str, *arguments: Any) -> Sequence[asyncpg.Record]: ...


class Postgres:
    """A server below `folder`, which PostgreSQL's own user can reach. Port and data outlast each restart."""

    def __init__(self, folder: Path, *, log: Path) -> None:
        self.data = folder / "data"
        self.port = own_port()
        self.url = f"postgresql://broker@127.0.0.1:{self.port}/postgres"
        self.settings = {"DATABASE_URL": self.url}
        self._folder = folder
        self._account = account_for(self.data)
        self._binaries = binaries_for(self.data, self._account).folder
        options = [f"--{name}={value}" for name, value in (_SETTINGS | {"port": str(self.port)}).items()]
        self._process = Process(
            [str(self._binaries / "postgres"), "-D", str(self.data), *options],
            log,
            environment={"LC_ALL": "C", "TZ": "UTC", "PATH": os.environ["PATH"]},
            uid=self._account.uid if self._account else None,
        )

    def create(self) -> None:
        """Makes the cluster, once; whoever reaches the port is believed to be `broker`."""
        arguments = [
            "-U",
            "broker",
            "-E",
            "UTF8",
            "-A",
            "trust",
            "--locale=C",
            "--no-sync",
            "--wal-segsize=1",
        ]
        self._make("initdb", *arguments)

    def copy(self, primary: Postgres) -> None:
        """Makes it anew, as a standby of `primary`, which it follows once it is started."""
        shutil.rmtree(self.data, ignore_errors=True)
        source = ["-h", "127.0.0.1", "-p", str(primary.port), "-U", "broker"]
        self._make("pg_basebackup", *source, "--write-recovery-conf", "--checkpoint=fast", "--no-sync")

    def _make(self, program: str, *arguments: str) -> None:
        self._folder.mkdir(exist_ok=True)
        if self._account:
            os.chown(self._folder, *self._account)
        made = run(self._account, self._binaries / program, "-D", str(self.data), *arguments)
        assert made.returncode == 0, made.stdout

    @property
    def is_running(self) -> bool:
        return self._process.is_running

    async def start(self, *, seconds: float = 30) -> None:
        """Serves when this returns, after crash recovery where that is due."""
        (self.data / "postmaster.pid").unlink(
            missing_ok=True
        )  # of a killed one, whose pid may be in use again
        self._process.start()

        def serves() -> bool:
            assert self._process.is_running, f"PostgreSQL ended:\n{self._process.last_words()}"
            return answers(self.port)

        await until(serves, seconds=seconds, what="PostgreSQL answers")
        await self._accepts(seconds)

    async def _accepts(self, seconds: float) -> None:
        """Until it is through with recovery."""
        async with asyncio.timeout(seconds):
            while True:
                with suppress(asyncpg.PostgresError, OSError):
                    await self.query("SELECT 1")
                    return
                await asyncio.sleep(0.05)

    def pids(self) -> list[int]:
        """The postmaster's and all its children's."""
        return [self._process.pid, *children(self._process.pid)]

    def crash(self) -> None:
        """kill -9 of the postmaster and all its children at once, as a crash of the machine would."""
        self._process.pause()  # it must not start another child meanwhile
        signal_all(list(children(self._process.pid)), signal.SIGKILL)
        self._process.kill()

    def pause(self) -> None:
        """Stops all of it, connections stay open."""
        self._process.pause()
        signal_all(list(children(self._process.pid)), signal.SIGSTOP)

    def resume(self) -> None:
        if self._process.is_running:
            signal_all(list(children(self._process.pid)), signal.SIGCONT)
            self._process.resume()

    async def stop(self) -> None:
        """The fast way: connections are ended, and all is written."""
        self.resume()
        self._process.signal(signal.SIGINT)
        await self._process.ended(seconds=30)

    def abandon(self) -> None:
        """Ends it for good, in no order; what it leaves is thrown away."""
        if self._process.is_running:
            self.crash()

    async def query(self, sql: str, *arguments: Any) -> Sequence[asyncpg.Record]:
        """The rows, over a connection of its own."""
        connection = await asyncpg.connect(self.url, timeout=5, command_timeout=20)
        try:
            return await connection.fetch(sql, *arguments)
        finally:
            await connection.close(timeout=5)
