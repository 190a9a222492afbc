"""PostgreSQL as tests use it: asked directly, and a server of a test's own, which may be stopped and let go on."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

OWNER = "TESTS_OWNER_URL"  # of the server that tests share


def as_owner(url: str) -> str:
    """The URL as asyncpg reads it, and with all rights where it is the service's role's on the server that tests share."""
    parts, owner = urlsplit(url), urlsplit(os.environ.get(OWNER, ""))
    if parts.port == owner.port:
        parts = parts._replace(netloc=owner.netloc)
    return urlunsplit(parts._replace(scheme="postgresql"))


@asynccontextmanager
async def database(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection past the service, with all rights, closed at the end."""
    connection = await asyncpg.connect(as_owner(url))
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

    @property
    def pid(self) -> int:
        """Of its first process."""
        return int(next(self._folder.rglob("postmaster.pid")).read_text().split()[0])

    def _signal(self, number: int) -> None:
        postmaster = self.pid
        for pid in (postmaster, *_children(postmaster)):
            with suppress(ProcessLookupError):  # one of its backends had just ended
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
