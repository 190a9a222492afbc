"""A primary and its synchronous standby on loopback: no commit is answered before both have flushed it.

    pair.fail_over()    the primary is gone, the standby is promoted; it commits alone
    pair.replace()      whoever is primary now gets a fresh standby, and waits for it with every commit

Which of the two is which changes with each failover, so a replica is told of both.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg

from tests.faults.postgres import Postgres
from tests.faults.processes import signal_all


class Pair:
    """`primary` and `standby`: a `Storage` whose questions go to the present primary."""

    def __init__(self, folder: Path, *, log: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.primary, self.standby = (
            Postgres(folder / name, log=log.with_name(f"{log.stem}-{name}.log")) for name in ("one", "other")
        )
        servers = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        self.settings = {"DATABASE_URL": f"postgresql://broker@{servers}/postgres"}

    def create(self) -> None:
        self.primary.create()

    async def start(self) -> None:
        """Both, where they do not run; a standby is made where there is none."""
        if not self.primary.is_running:
            await self.primary.start()
        if not self.standby.is_running:
            await self.replace()

    async def replace(self) -> None:
        """A fresh standby in place of what is there; from here on each commit waits for it."""
        self.standby.abandon()
        await self._tell_primary("ALTER SYSTEM SET synchronous_standby_names = ''")  # of which this is a copy
        await asyncio.to_thread(self.standby.copy, self.primary)
        await self.standby.start()
        await self._tell_primary("ALTER SYSTEM SET synchronous_standby_names = 'walreceiver'")
        async with asyncio.timeout(30):
            while not await self.query("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"):
                await asyncio.sleep(0.02)
        # A commit that waited for it, and what came before had to be there first.
        await self.query("SELECT pg_logical_emit_message(true, 'barrier', '')")

    async def _tell_primary(self, statement: str) -> None:
        await self.query(statement)
        await self.query("SELECT pg_reload_conf()")

    async def cut_off(self) -> None:
        """What the primary writes from here on does not reach the standby."""
        senders = await self.query("SELECT pid FROM pg_stat_replication")
        signal_all([row["pid"] for row in senders], signal.SIGSTOP)

    async def promote(self) -> None:
        """The standby takes writes when this returns, and is the primary from now on, whatever the old one does."""
        [[promoted]] = await self.standby.query("SELECT pg_promote(wait_seconds => 20)")
        assert promoted, "the standby was not promoted"
        self.primary, self.standby = self.standby, self.primary

    @property
    def is_running(self) -> bool:
        return self.primary.is_running and self.standby.is_running

    def pids(self) -> list[int]:
        return [pid for server in (self.primary, self.standby) if server.is_running for pid in server.pids()]

    def crash(self) -> None:
        """The primary's."""
        self.primary.crash()

    def pause(self) -> None:
        """The primary's."""
        self.primary.pause()

    def resume(self) -> None:
        self.primary.resume()
        self.standby.resume()

    def abandon(self) -> None:
        self.primary.abandon()
        self.standby.abandon()

    async def query(self, sql: str, *arguments: Any) -> Sequence[asyncpg.Record]:
        """The present primary's answer."""
        return await self.primary.query(sql, *arguments)
