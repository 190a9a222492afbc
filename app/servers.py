"""The PostgreSQL servers that a URL names: `postgresql://broker@one:5432,other:5432/broker`.

One of them takes writes; the others follow it, and may be promoted at any time. They are asked in turn, each with a share of
the time: asyncpg has one time-out for all of them, which a first one that hangs, or whose machine is gone, would use up.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit, urlunsplit

import asyncpg
from asyncpg.connect_utils import SessionAttribute

# Prepared ones that a connection keeps; none where its next transaction may run on another one.
STATEMENTS = 100
_CONNECT_SECONDS = 5.0  # for all of them together
_TRY_THE_NEXT = (
    OSError,  # among them the time-out
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TargetServerAttributeNotMatched,  # a standby
)


class Servers:
    """The servers of one URL."""

    def __init__(self, url: str) -> None:
        self._urls = each_server(url)
        self._latest = 0

    async def connect(
        self, *, command_timeout: float | None, statement_cache_size: int = STATEMENTS
    ) -> asyncpg.Connection:
        """A connection to the first that takes writes, beginning with the one that did so last.

        Raises OSError, asyncpg.PostgresError or asyncpg.InternalClientError where none does.
        """
        first, refusal = self._latest, None
        for number in (*range(first, len(self._urls)), *range(first)):
            try:
                connection = await asyncpg.connect(
                    self._urls[number],
                    timeout=_CONNECT_SECONDS / len(self._urls),
                    command_timeout=command_timeout,
                    statement_cache_size=statement_cache_size,
                    target_session_attrs=SessionAttribute.read_write,  # what once was is of no use to us
                )
            except _TRY_THE_NEXT as error:
                refusal = error
            else:
                # An old primary that comes back, and knows nothing of its successor, is not asked again.
                self._latest = number
                return connection
        assert refusal is not None
        raise refusal


def each_server(url: str) -> list[str]:
    """The URL once for each server that it names, as PostgreSQL's own clients read it. Raises ValueError where it is none."""
    parts = urlsplit(url)
    login, at, servers = parts.netloc.rpartition("@")
    return [
        urlunsplit(parts._replace(scheme="postgresql", netloc=f"{login}{at}{server}"))
        for server in servers.split(",")
    ]


def user_of(url: str) -> str | None:
    """The user that the URL names."""
    name = urlsplit(url).username
    return None if name is None else unquote(name)
