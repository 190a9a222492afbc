"""A provider's endpoints: where tokens come from, are revoked and are asked about, and how those are found.

Requests are built by `messages`, sent by `door` and understood by `answers`. An entry that names an issuer only is
completed by what that issuer publishes, which is remembered for an hour.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace

from cachetools import TTLCache

from app.breaker import Breakers
from app.errors import ProviderUnavailable, Sent, UpstreamError
from app.oauth.answers import (
    TokenSet,
    parse_introspection_answer,
    parse_revocation_answer,
    parse_token_answer,
    parse_userinfo_answer,
)
from app.oauth.client import OAuthClient
from app.oauth.door import Door
from app.oauth.messages import (
    code_request,
    introspection_request,
    refresh_request,
    revocation_request,
    userinfo_request,
)
from app.oauth.metadata import metadata_request, metadata_urls, published
from app.outbound.addresses import Reachable

_PUBLISHED_SECONDS = 3600

# An issuer, and whether we have a secret: on both depends what is made of its answer.
_Asked = tuple[str, bool]


class TokenEndpoints:
    """Asks providers for tokens. Each question completes the client first. Create and close it on one event loop."""

    def __init__(
        self,
        reachable: Reachable,
        *,
        timeout_seconds: float = 10.0,
        max_connections: int = 1024,
        breakers: Breakers | None = None,
    ) -> None:
        """`breakers` leave an issuer alone that does not answer; token endpoints are guarded by who asks them."""
        self._door = Door(reachable, timeout_seconds=timeout_seconds, max_connections=max_connections)
        self._breakers = breakers
        self._published: dict[_Asked, Mapping[str, object]] = {}
        self._asked_lately: TTLCache[_Asked, bool] = TTLCache(10_000, _PUBLISHED_SECONDS)
        self._asking: dict[_Asked, asyncio.Task[Mapping[str, object]]] = {}

    async def completed(self, client: OAuthClient) -> OAuthClient:
        """The client with the endpoints that its issuer publishes, where its catalogue entry names none.

        What was published last counts while the issuer cannot be asked. Raises UpstreamError, which always says that
        nothing of what was wanted has been sent.
        """
        if not client.provider.is_discovered:
            return client
        client.require_registration()
        asked = _asked_for(client)
        if asked not in self._asked_lately:
            try:
                self._published[asked] = await self._answer(asked, client)
            except UpstreamError:
                if asked not in self._published:
                    raise
            self._asked_lately[asked] = True
        return replace(client, provider=client.provider.completed(self._published[asked]))

    def may_ask(self, client: OAuthClient) -> bool:
        """Whether the client's endpoints are known, or its issuer may be asked for them now; takes nothing."""
        if not client.provider.is_discovered or self._breakers is None:
            return True
        return _asked_for(client) in self._published or self._breakers.admits(client.metadata_breaker)

    async def exchange_code(
        self, client: OAuthClient, *, code: str, redirect_uri: str, code_verifier: str
    ) -> TokenSet:
        """RFC 6749 section 4.1.3. May not be repeated: a code works once. Raises UpstreamError."""
        client = await self.completed(client)
        request = code_request(client, code=code, redirect_uri=redirect_uri, code_verifier=code_verifier)
        return parse_token_answer(client, await self._door.send(client, request))

    async def refresh(self, client: OAuthClient, *, refresh_token: str) -> TokenSet:
        """RFC 6749 section 6. Where the provider rotates strictly it may be repeated only after `Sent.NOT_SENT`
        or `Sent.ANSWERED`. Raises UpstreamError."""
        client = await self.completed(client)
        request = refresh_request(client, refresh_token=refresh_token)
        return parse_token_answer(client, await self._door.send(client, request))

    async def revoke(self, client: OAuthClient, *, token: str, hint: str) -> bool | None:
        """Whether the provider revoked it; False where it refused to, None where it has no way to. May be repeated.
        Raises UpstreamError where it did not decide."""
        client = await self.completed(client)
        request = revocation_request(client, token=token, hint=hint)
        if request is None:
            return None
        return parse_revocation_answer(client, await self._door.send(client, request))

    async def introspect(self, client: OAuthClient, *, access_token: str) -> bool | None:
        """Whether the token is active; None where the provider does not tell. May be repeated. Raises UpstreamError."""
        client = await self.completed(client)
        request = introspection_request(client, access_token=access_token)
        return None if request is None else parse_introspection_answer(await self._door.send(client, request))

    async def userinfo(self, client: OAuthClient, *, access_token: str) -> bool | None:
        """Whether the userinfo endpoint accepts the token; None where it does not tell. May be repeated. Raises
        UpstreamError."""
        client = await self.completed(client)
        request = userinfo_request(client, access_token=access_token)
        return None if request is None else parse_userinfo_answer(await self._door.send(client, request))

    async def close(self) -> None:
        for asking in self._asking.values():
            asking.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        await self._door.close()

    async def _answer(self, asked: _Asked, client: OAuthClient) -> Mapping[str, object]:
        """What the issuer publishes; whoever wants to know at once shares the question."""
        asking = self._asking.get(asked)
        if asking is None:
            asking = self._asking[asked] = asyncio.create_task(self._discover(client, issuer=asked[0]))
            asking.add_done_callback(lambda task: self._answered(asked, task))
        return await asyncio.shield(asking)

    def _answered(self, asked: _Asked, task: asyncio.Task[Mapping[str, object]]) -> None:
        del self._asking[asked]
        if not task.cancelled():
            task.exception()  # taken notice of here, since nobody may be waiting any more

    async def _discover(self, client: OAuthClient, *, issuer: str) -> Mapping[str, object]:
        with self._breakers.operation(client.metadata_breaker) if self._breakers else nullcontext():
            for url in metadata_urls(issuer):
                try:
                    answer = await self._door.send(client, metadata_request(url))
                except UpstreamError as error:
                    error.sent = Sent.NOT_SENT  # only the question where to send it
                    raise
                if (found := published(client, issuer, answer)) is not None:
                    return found
        raise ProviderUnavailable(
            f"{client.title} does not say where its sign-in is. Your connection is kept; try again shortly.",
            provider=client.name,
            sent=Sent.NOT_SENT,
            provider_code="no_metadata",
        )


def _asked_for(client: OAuthClient) -> _Asked:
    issuer = client.provider.resolve(client.provider.issuer or "", client.variables)
    return issuer, client.client_secret is not None
