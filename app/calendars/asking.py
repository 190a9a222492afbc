"""Asks a grant's calendar API, and says in a user's words why there was no answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from app.apis.caller import ApiCaller
from app.calendars.google import GoogleCalendar
from app.calendars.google_writes import GoogleWrites
from app.calendars.graph import GraphCalendar
from app.calendars.graph_writes import GraphWrites
from app.calendars.trouble import BaselineNeeded, ErrorType, SyncFailed, Trouble
from app.calendars.upstream import Upstream
from app.calendars.writes import Writes
from app.clock import Clock
from app.errors import (
    BrokerError,
    Category,
    GrantNotFound,
    ProviderRejectedClient,
    ReconnectRequired,
    UpstreamError,
)
from app.grants.grant import GrantKey
from app.oauth.client import OAuthClient, OAuthClients
from app.oauth.parts import CalendarApi
from app.oauth.wire import HttpAnswer, HttpRequest
from app.outages import DatabaseUnavailable
from app.resilience import Backoff

_KINDS: Mapping[CalendarApi, Callable[[str], Upstream]] = {
    "google": GoogleCalendar,
    "microsoft": GraphCalendar,
}
_WRITES: Mapping[CalendarApi, Callable[[str], Writes]] = {"google": GoogleWrites, "microsoft": GraphWrites}


class CalendarApis:
    """Each provider's calendar API, asked with a grant's token."""

    def __init__(self, caller: ApiCaller, clients: OAuthClients, clock: Clock, *, backoff: Backoff) -> None:
        self._caller = caller
        self._clients = clients
        self._clock = clock
        self._backoff = backoff

    @property
    def providers(self) -> list[str]:
        """The registrations whose provider has a calendar API that we know."""
        return [client.name for client in self._clients if upstream_of(client) is not None]

    def of(self, provider: str) -> Upstream | None:
        """None where the provider has none that we know. Raises UnknownProvider."""
        return upstream_of(self._clients.get(provider))

    def writes_of(self, provider: str) -> Writes:
        """How events are written there, at a provider that has a calendar API. Raises UnknownProvider."""
        client = self._clients.get(provider)
        base_url = client.provider.api.base_url
        assert client.calendar_api is not None and base_url is not None
        return _WRITES[client.calendar_api](client.provider.resolve(base_url, client.variables))

    async def ask(
        self,
        key: GrantKey,
        upstream: Upstream,
        request: HttpRequest,
        *,
        repeatable: bool = True,
        also: Collection[int] = (),
    ) -> HttpAnswer:
        """The answer, which is below 400 or `also` one that the caller reads. A provider that is busy for a moment is waited
        for.

        Raises SyncFailed, BaselineNeeded and DatabaseUnavailable.
        """
        tries = 0
        while True:
            tries += 1
            answer = await self._called(key, upstream, request, repeatable=repeatable)
            if 200 <= answer.status < 300 or answer.status in also:
                return answer
            if answer.status < 400:  # nothing is done where it would send us
                code = f"http_{answer.status}"
                raise SyncFailed(Trouble(ErrorType.PROVIDER_UNAVAILABLE, upstream.title, provider_code=code))
            if upstream.wants_baseline(answer):
                raise BaselineNeeded
            trouble = upstream.trouble_in(answer)
            busy = trouble.error_type is ErrorType.RATE_LIMITED
            delay = self._backoff.delay(tries, retry_after=trouble.retry_after) if busy else None
            if delay is None:
                raise SyncFailed(trouble)
            await self._clock.sleep(delay)

    async def _called(
        self, key: GrantKey, upstream: Upstream, request: HttpRequest, *, repeatable: bool
    ) -> HttpAnswer:
        try:
            return await self._caller.call(key, request, repeatable=repeatable)
        except DatabaseUnavailable:
            raise
        except BrokerError as error:
            raise SyncFailed(_trouble_of(error, upstream.title)) from error


def upstream_of(client: OAuthClient) -> Upstream | None:
    base_url = client.provider.api.base_url
    if client.calendar_api is None or base_url is None:
        return None
    return _KINDS[client.calendar_api](client.provider.resolve(base_url, client.variables))


def _trouble_of(error: BrokerError, calendar: str) -> Trouble:
    code = error.provider_code if isinstance(error, UpstreamError) else None
    return Trouble(_meaning(error), calendar, error.retry_after, code or error.code)


def _meaning(error: BrokerError) -> ErrorType:
    if isinstance(error, ReconnectRequired | GrantNotFound):
        return ErrorType.AUTHENTICATION_EXPIRED
    permanent = isinstance(error, UpstreamError) and error.category is Category.PERMANENT
    if isinstance(error, ProviderRejectedClient) or permanent:
        return ErrorType.MISCONFIGURED
    if isinstance(error, UpstreamError) and error.category is Category.RATE_LIMIT:
        return ErrorType.RATE_LIMITED
    return ErrorType.PROVIDER_UNAVAILABLE if error.retryable else ErrorType.INTERNAL
