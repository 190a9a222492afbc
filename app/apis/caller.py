"""Calls a provider's API with a grant's access token.

fresh token -> breaker -> request, again where that may be -> 401? one refresh by generation -> request
"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit

from app.breaker import BreakerKey, Breakers
from app.clock import Clock
from app.errors import Category, ProviderUnavailable, Sent, UpstreamError
from app.grants.grant import GrantKey
from app.grants.refresh import Refresher
from app.grants.token import Need, Token
from app.oauth.client import OAuthClient, OAuthClients
from app.oauth.door import Door
from app.oauth.wire import HttpAnswer, HttpRequest
from app.resilience import Backoff

MAX_API_ANSWER_BYTES = 16 * 1024 * 1024  # a page of a list, read whole
_REPEATED = {Category.NETWORK, Category.TRANSIENT}


class ApiCaller:
    """Answers what the provider said, whatever the status below 500. The token stays in here."""

    def __init__(
        self,
        refresher: Refresher,
        clients: OAuthClients,
        breakers: Breakers,
        door: Door,
        clock: Clock,
        *,
        backoff: Backoff,
    ) -> None:
        self._refresher = refresher
        self._clients = clients
        self._breakers = breakers
        self._door = door
        self._clock = clock
        self._backoff = backoff

    async def call(self, key: GrantKey, request: HttpRequest, *, repeatable: bool = True) -> HttpAnswer:
        """The answer. One of 401 has been asked for again with a newer token; it stands where that was refused as well.

        `repeatable`: whether the request may take effect twice; any other is repeated only where it was never sent.
        Raises what `Refresher.fresh` raises, and ProviderUnavailable for 5xx and where nothing came back.
        """
        client = self._clients.get(key.provider)
        token = await self._refresher.fresh(key, Need())
        answer = await self._asked(client, request, token, repeatable=repeatable)
        if answer.status != 401:
            return answer
        token = await self._refresher.force(key, generation=token.grant.generation)
        return await self._asked(client, request, token, repeatable=repeatable)

    async def _asked(
        self, client: OAuthClient, request: HttpRequest, token: Token, *, repeatable: bool
    ) -> HttpAnswer:
        """One operation of the breaker, however many tries it takes."""
        request = replace(request, headers=_headers(client, request, token))
        with self._breakers.operation(_breaker(client, request)) as is_probe:
            tries = 0
            while True:
                tries += 1
                try:
                    return await self._tried(client, request)
                except UpstreamError as error:
                    delay = self._backoff.delay(tries, retry_after=error.retry_after)
                    if is_probe or delay is None or not _may_repeat(error, repeatable):
                        raise
                await self._clock.sleep(delay)

    async def _tried(self, client: OAuthClient, request: HttpRequest) -> HttpAnswer:
        answer = await self._door.send(client, request)
        if answer.status < 500:
            return answer
        raise ProviderUnavailable(
            f"{client.title} cannot answer at the moment. Your connection is kept; try again shortly.",
            provider=client.name,
            sent=Sent.UNKNOWN,
            provider_code=f"http_{answer.status}",
            retry_after=answer.retry_after(),
        )


def _breaker(client: OAuthClient, request: HttpRequest) -> BreakerKey:
    return BreakerKey(client.name, "api", urlsplit(request.url).netloc)


def _headers(client: OAuthClient, request: HttpRequest, token: Token) -> dict[str, str]:
    return {
        "Accept-Encoding": "gzip",
        **client.provider.api.headers,
        **request.headers,
        "Authorization": f"Bearer {token.access_token}",  # RFC 6750 section 2.1
    }


def _may_repeat(error: UpstreamError, repeatable: bool) -> bool:
    return error.category in _REPEATED and (repeatable or error.sent is Sent.NOT_SENT)
