"""Providers' APIs called for services that would rather not hold a token."""

from __future__ import annotations

from urllib.parse import urlsplit

from app.apis.caller import ApiCaller
from app.errors import ValidationFailed
from app.gateway.call import Answer, Call
from app.oauth.client import OAuthClients
from app.oauth.wire import HttpRequest


class Gateway:
    """Calls, with the grant's token, what lies below the API's base."""

    def __init__(self, caller: ApiCaller, clients: OAuthClients) -> None:
        self._caller = caller
        self._clients = clients

    async def whole(self, call: Call, *, most: int) -> Answer:
        """The answer with at most `most` bytes of its body.

        Raises what `Refresher.fresh` raises, ProviderUnavailable and ProviderError where nothing came back, and
        ValidationFailed for a target that would leave the API's base.
        """
        assert isinstance(call.body, bytes)
        client = self._clients.get(call.key.provider)
        base = client.provider.resolve(client.provider.api.base_url or "", client.variables)
        if ".." in call.target or urlsplit(call.target).netloc:
            raise ValidationFailed("The path is not one.", fields={"path": "must stay below the API's base"})
        request = HttpRequest(
            f"{base.rstrip('/')}/{call.target.lstrip('/')}", dict(call.headers), call.body, method=call.method
        )
        answer = await self._caller.call(call.key, request)
        return Answer(
            answer.status, tuple(answer.headers.items()), answer.body[:most], 1, len(answer.body) > most
        )
