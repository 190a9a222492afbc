"""HTTP clients whose connections go only where they may.

    new_client(reachable, ...) -> httpx.AsyncClient

Each address is checked twice: when a name is resolved (one bad address refuses the name), and once more when the
socket for exactly that address is made, after which nobody resolves anything. So a name that changes its mind between two
look-ups (DNS rebinding) gains nothing, and addresses that need no look-up are checked as well.
"""

from __future__ import annotations

import socket
import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from httpx_aiohttp import AiohttpTransport

from app.outbound.addresses import AddressRefused, Reachable

_PER_HOST = 64
_DNS_SECONDS = 10
_MAX_LINE = 8190  # bytes of a status line, and of a header
_KEEPALIVE_SECONDS = (
    5.0  # longer, and more idle connections are closed by the provider just as we write to them
)


def new_client(
    reachable: Reachable | None,
    *,
    timeout: httpx.Timeout,
    max_connections: int = 1024,
) -> httpx.AsyncClient:
    """A client that verifies certificates (TLS 1.2 or later), follows no redirect, keeps no cookie and reads nothing of the
    environment. Its requests raise AddressRefused where they would leave what is reachable; None: everything is, which
    is for addresses that only operators name. Make it and close it on the event loop that uses it.
    """
    limits = httpx.Limits(max_connections=max_connections, keepalive_expiry=_KEEPALIVE_SECONDS)
    transport = AiohttpTransport(client=lambda: _session(reachable, limits), limits=limits)
    return httpx.AsyncClient(
        transport=transport if reachable is None else _Guarded(transport, reachable),
        timeout=timeout,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # one user's cookie is not another's
        follow_redirects=False,
        trust_env=False,
    )


class _Guarded(httpx.AsyncBaseTransport):
    """Refuses addresses before anything below sees them, and says so in one way whatever found it."""

    def __init__(self, transport: httpx.AsyncBaseTransport, reachable: Reachable) -> None:
        self._transport = transport
        self._reachable = reachable

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._reachable.require_host(request.url.raw_host.decode("ascii"))
        try:
            return await self._transport.handle_async_request(request)
        except httpx.TransportError as error:
            if refused := _refusal_behind(error):
                raise refused from error
            raise

    async def aclose(self) -> None:
        await self._transport.aclose()


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


def _refusal_behind(error: BaseException) -> AddressRefused | None:
    cause = error.__cause__
    found = cause.os_error if isinstance(cause, aiohttp.ClientConnectorError) else None
    return found if isinstance(found, AddressRefused) else None


def _session(reachable: Reachable | None, limits: httpx.Limits) -> aiohttp.ClientSession:
    resolver = aiohttp.DefaultResolver()

    def guarded_socket(address: aiohttp.AddrInfoType) -> socket.socket:
        """For exactly this address, which is connected to next."""
        family, kind, protocol, _, destination = address
        if reachable is not None:
            reachable.require(str(destination[0]), [str(destination[0])])
        return socket.socket(family, kind, protocol)

    connector = aiohttp.TCPConnector(
        limit=limits.max_connections or 0,
        limit_per_host=_PER_HOST,  # one provider that hangs must not take the connections of the others
        keepalive_timeout=limits.keepalive_expiry or _KEEPALIVE_SECONDS,
        ttl_dns_cache=_DNS_SECONDS,
        resolver=resolver if reachable is None else _Resolver(reachable, resolver),
        socket_factory=guarded_socket,
        ssl=_tls(),
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        max_line_size=_MAX_LINE,
        max_field_size=_MAX_LINE,
    )


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
