"""The one door through which requests to providers leave, to their OAuth endpoints and to their APIs.

Every request has a total deadline and a bounded body; where it may lead, and that it follows no redirect, is
`app.outbound`'s. What a failure says of the request (was it sent, may it have been processed) is decided here, since a
refresh token depends on it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager

import aiohttp

from app.errors import Category, ProviderError, ProviderUnavailable, RequestTooSlow, Sent
from app.oauth.client import OAuthClient
from app.oauth.exchange import IDLE_SECONDS, Exchange, Upload, answer_too_large
from app.oauth.wire import HttpAnswer, HttpRequest, StreamRequest, expanded
from app.outbound.addresses import AddressRefused, Reachable
from app.outbound.connector import NoConnectionFree
from app.outbound.http import Outbound, exactly
from app.telemetry import security_event

MAX_ANSWER_BYTES = 64 * 1024
CONNECT_SECONDS = 2.0
LAST_LOOK_SECONDS = 0.25
_REFUSED_SECONDS = 60  # more than any pause between two tries: somebody has to do something first
_NEVER_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class Door:
    """Sends requests to providers. Create it and close it on the event loop that uses it."""

    def __init__(
        self,
        reachable: Reachable,
        *,
        timeout_seconds: float = 10.0,
        max_connections: int = 1024,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        repeats: bool = True,
    ) -> None:
        """`repeats`: as `Outbound` has it."""
        self.timeout_seconds = timeout_seconds
        self._max_answer_bytes = max_answer_bytes
        # Reading has no time of its own: a timer that fires after a pause would drop an answer that is there.
        self._outbound = Outbound(
            reachable,
            connect_seconds=CONNECT_SECONDS,
            pool_seconds=timeout_seconds / 2,
            idle_seconds=IDLE_SECONDS,
            repeats=repeats,
            max_connections=max_connections,
        )

    async def send(self, client: OAuthClient, request: HttpRequest) -> HttpAnswer:
        """The answer, whatever its status. Raises ProviderUnavailable, or ProviderError for one that is larger
        than it may be."""
        with _told(client):
            return await self._in_time(self._exchange(client, request))

    async def open(
        self, client: OAuthClient, request: StreamRequest, *, seconds: float, max_bytes: int
    ) -> Exchange:
        """The answer as soon as its head is there, which may take `seconds`; those of an upload begin when it is sent.

        Raises what `send` raises, what made the source of an upload break off, and RequestTooSlow where nothing comes from
        it. An answer that says itself that it is larger than `max_bytes` is a ProviderError.
        """
        headers, upload = dict(request.headers), request.body if isinstance(request.body, Upload) else None
        if upload is not None and upload.length is not None:
            headers["Content-Length"] = str(upload.length)
        with _told(client):
            require_below(request.url, request.base)
            try:
                async with asyncio.timeout(seconds) as limit:
                    if upload is not None:
                        upload.hold_to(limit, seconds)
                    response = await self._outbound.open(
                        request.method,
                        request.url,
                        headers=headers,
                        body=request.body,
                    )
            except (aiohttp.ClientError, OSError):
                if upload is not None and upload.failure is not None:
                    raise upload.failure from None
                if upload is not None and upload.waits and limit.expired():
                    raise RequestTooSlow from None
                raise
            finally:
                if upload is not None:
                    upload.let_go()
        return _bounded(client, response, max_bytes)

    async def close(self) -> None:
        await self._outbound.close()

    async def _in_time(self, work: Coroutine[None, None, HttpAnswer]) -> HttpAnswer:
        """The answer, or TimeoutError. A process that was paused finds its time over and the answer in the socket's
        buffer, so there is one more look: that answer may hold the only refresh token that works."""
        exchange = asyncio.create_task(work)
        try:
            for seconds in (self.timeout_seconds, LAST_LOOK_SECONDS):
                await asyncio.wait({exchange}, timeout=seconds)
            if not exchange.done():
                raise TimeoutError
            return exchange.result()
        finally:
            if not exchange.done():
                exchange.cancel()
                await asyncio.gather(exchange, return_exceptions=True)

    async def _exchange(self, client: OAuthClient, request: HttpRequest) -> HttpAnswer:
        async with self._outbound.request(
            request.method, request.url, headers=request.headers, body=request.body
        ) as response:
            headers = {name.lower(): ", ".join(response.headers.getall(name)) for name in response.headers}
            body = bytearray()
            # Raw: a small body must not become a large one.
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > self._max_answer_bytes:
                    raise answer_too_large(client)
        whole = expanded(bytes(body), headers.get("content-encoding", ""), limit=self._max_answer_bytes)
        if whole is None:
            raise answer_too_large(client)
        return HttpAnswer(response.status, headers, whole)


@contextmanager
def _told(client: OAuthClient) -> Iterator[None]:
    """What goes wrong on the way, as an error of the tree."""
    try:
        yield
    except AddressRefused as error:
        security_event("address_refused", provider=client.name, host=error.host, address=error.address)
        raise _refused(client) from error
    except aiohttp.InvalidURL as error:
        security_event("address_refused", provider=client.name, detail="the URL cannot be read")
        raise _refused(client) from error
    except NoConnectionFree as error:
        raise _crowded(client) from error
    except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
        what = (
            "timeout"
            if isinstance(error, TimeoutError) and not isinstance(error, _NEVER_SENT)
            else type(error).__name__
        )
        sent = Sent.NOT_SENT if isinstance(error, _NEVER_SENT) else Sent.UNKNOWN
        raise _unreachable(client, what, sent) from error


def require_below(url: str, base: str) -> None:
    """Raises aiohttp.InvalidURL unless the URL, as it will be sent, has the origin of `base` and its path or one below."""
    target, root = exactly(url), exactly(base)
    path, prefix = target.raw_path, root.raw_path.rstrip("/")
    is_below = path == prefix or path.startswith(f"{prefix}/") or path == root.raw_path
    if target.raw_user is not None or target.origin() != root.origin() or not is_below:
        raise aiohttp.InvalidURL(base)


def _bounded(client: OAuthClient, response: aiohttp.ClientResponse, max_bytes: int) -> Exchange:
    """Raises ProviderError for an answer that cannot be passed on."""
    announced = response.content_length
    if announced is not None and announced > max_bytes and response.method != "HEAD":
        response.close()
        raise answer_too_large(client)
    if (
        not 200 <= response.status < 600
    ):  # some give 999, which HTTP does not have; 101 would be another protocol
        response.close()
        raise ProviderError(
            f"{client.title} gave an answer that cannot be read. Your connection is kept.",
            provider=client.name,
            sent=Sent.UNKNOWN,
            provider_code=f"http_{response.status}",
        )
    return Exchange(client, response, max_bytes=max_bytes)


def _unreachable(client: OAuthClient, what: str, sent: Sent) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"{client.title} cannot be reached at the moment. Your connection is kept; try again shortly.",
        provider=client.name,
        sent=sent,
        category=Category.NETWORK,
        provider_code=what,
    )


def _crowded(client: OAuthClient) -> ProviderUnavailable:
    """The provider was not asked, so no breaker counts it, and another try at once would be one more in the crowd."""
    return ProviderUnavailable(
        f"Too many requests to {client.title} are under way. Your connection is kept; try again shortly.",
        provider=client.name,
        sent=Sent.NOT_SENT,
        category=Category.RATE_LIMIT,
        provider_code="no_connection_free",
        retry_after=1,
    )


def _refused(client: OAuthClient) -> ProviderUnavailable:
    """The provider was not asked, so it tells nothing of it: no breaker counts a permanent trouble. An open one would hide
    the reason, and go on for minutes after it has been mended."""
    return ProviderUnavailable(
        f"{client.title} cannot be reached from here. This service's operators have to look into it; your connection is kept.",
        provider=client.name,
        sent=Sent.NOT_SENT,
        category=Category.PERMANENT,
        provider_code="address_refused",
        retry_after=_REFUSED_SECONDS,
    )
