"""PostgreSQL as tests use it: asked directly, and a server of a test's own, which may be stopped and let go on."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg


@asynccontextmanager
async def database(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection past the service, closed at the end."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        yield connection
    finally:
        await connection.close()


class Postgres:
    """A server of this test's own, which it may stop."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._folder = folder

    def hang(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        postmaster = int(next(self._folder.rglob("postmaster.pid")).read_text().split()[0])
        for pid in (postmaster, *_children(postmaster)):
            os.kill(pid, number)


def _children(parent: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                yield int(entry.name)
