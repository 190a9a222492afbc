"""HTTP requests that go only where they may.

    async with outbound.request(method, url, ...) as response:      aiohttp's
    response = await outbound.open(method, url, ...)                to be closed by whoever opened it

Each address is checked twice: when a name is resolved (one bad address refuses the name), and once more when the
socket for exactly that address is made, after which nobody resolves anything. So a name that changes its mind between two
look-ups (DNS rebinding) gains nothing, and addresses that need no look-up are checked as well.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from app.outbound.addresses import AddressRefused, Reachable
from app.outbound.connector import Connector

_PER_HOST = 64
_DNS_SECONDS = 10
_OURS = frozenset({"Accept", "Accept-Encoding", "Content-Type", "User-Agent"})  # that the library would add
_MAX_LINE = 8190  # bytes of a status line, and of a header
_KEEPALIVE_SECONDS = (
    5.0  # longer, and more idle connections are closed by the provider just as we write to them
)


class Outbound:
    """Verifies certificates (TLS 1.2 or later), follows no redirect, keeps no cookie, reads nothing of the environment, and
    leaves bodies as they come. Use it and close it on one event loop.
    """

    def __init__(
        self,
        reachable: Reachable | None,
        *,
        connect_seconds: float,
        pool_seconds: float,
        idle_seconds: float | None = None,
        repeats: bool = True,
        max_connections: int = 1024,
    ) -> None:
        """`reachable` None: everything is, which is for addresses that only operators name. Reading has no time of its
        own: `pool_seconds` are for a connection to be free, `connect_seconds` for a new one. `idle_seconds`: of answers
        that are read as they come. `repeats`: whether an idempotent request that a kept connection loses is sent once more,
        of which nobody is told."""
        self._reachable = reachable
        self._pool_seconds = pool_seconds
        both = pool_seconds + connect_seconds
        self._timeout = aiohttp.ClientTimeout(connect=both, sock_connect=connect_seconds)
        self._idle_timeout = aiohttp.ClientTimeout(
            connect=both, sock_connect=connect_seconds, sock_read=idle_seconds
        )
        self._repeats = repeats
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, whose body is still to be read.

        Raises AddressRefused where the request would leave what is reachable, aiohttp.InvalidURL where nobody can tell
        where it would go, NoConnectionFree, and other aiohttp.ClientError, ssl.SSLError and OSError as aiohttp does.
        """
        async with await self._asked(
            method, _parsed(url), headers=headers, body=body or None, timeout=self._timeout
        ) as response:
            yield response

    async def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | AsyncIterable[bytes],
    ) -> aiohttp.ClientResponse:
        """The answer, whose body is still to be read, and which is to be closed whatever comes of it. Of one that says
        nothing for `idle_seconds` reading raises TimeoutError; while nobody reads on, that time does not run.

        The URL goes over the wire as it stands, and no header is added that says what the caller takes or sends.
        Raises what `request` raises.
        """
        return await self._asked(
            method,
            exactly(url),
            headers=headers,
            body=body or None,
            timeout=self._idle_timeout,
            skip_auto_headers=_OURS,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _asked(
        self,
        method: str,
        target: URL,
        *,
        headers: Mapping[str, str],
        body: bytes | AsyncIterable[bytes] | None,
        timeout: aiohttp.ClientTimeout,
        skip_auto_headers: Collection[str] = (),
    ) -> aiohttp.ClientResponse:
        if self._reachable is not None:
            self._reachable.require_host(target.raw_host or "")
        if self._session is None:
            self._session = _session(
                self._reachable, self._timeout, self._max_connections, self._pool_seconds
            )
            self._session._retry_connection = self._repeats  # there is no public way; a test guards it
        try:
            return await self._session.request(
                method,
                target,
                headers=headers,
                data=body,
                allow_redirects=False,
                timeout=timeout,
                skip_auto_headers=skip_auto_headers,
            )
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, AddressRefused):
                raise error.os_error from error
            raise


def exactly(url: str) -> URL:
    """The URL as it stands: nothing is quoted, decoded or normalised. Raises aiohttp.InvalidURL."""
    try:
        return URL(url, encoded=True)
    except ValueError as error:
        raise aiohttp.InvalidURL(url) from error


def _parsed(url: str) -> URL:
    try:
        return URL(url)
    except ValueError as error:
        raise aiohttp.InvalidURL(url) from error


class _Resolver(AbstractResolver):
    """Another resolver's answers, if all of them are reachable."""

    def __init__(self, reachable: Reachable, resolver: AbstractResolver) -> None:
        self._reachable = reachable
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        self._reachable.require(host, (each["host"] for each in found))
        return found

    async def close(self) -> None:
        await self._resolver.close()


def _session(
    reachable: Reachable | None, timeout: aiohttp.ClientTimeout, max_connections: int, pool_seconds: float
) -> aiohttp.ClientSession:
    resolver = aiohttp.DefaultResolver()

    def guarded_socket(address: aiohttp.AddrInfoType) -> socket.socket:
        """For exactly this address, which is connected to next."""
        family, kind, protocol, _, destination = address
        if reachable is not None:
            reachable.require(str(destination[0]), [str(destination[0])])
        return socket.socket(family, kind, protocol)

    connector = Connector(
        pool_seconds=pool_seconds,
        limit=max_connections,
        limit_per_host=_PER_HOST,  # one provider that hangs must not take the connections of the others
        keepalive_timeout=_KEEPALIVE_SECONDS,
        ttl_dns_cache=_DNS_SECONDS,
        resolver=resolver if reachable is None else _Resolver(reachable, resolver),
        socket_factory=guarded_socket,
        ssl=_tls(),
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        cookie_jar=aiohttp.DummyCookieJar(),  # one user's cookie is not another's
        trust_env=False,
        auto_decompress=False,
        max_line_size=_MAX_LINE,
        max_field_size=_MAX_LINE,
    )


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
