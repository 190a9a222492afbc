"""Calls a provider's API with a grant's access token.

fresh token -> breaker -> place -> request, again where that may be -> 401? one refresh by generation -> request
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit
from uuid import UUID

from app.apis.conversation import A, Conversation, R
from app.apis.manners import Manners, is_failure
from app.apis.unpaced import Pacing, Unpaced
from app.bounded import Bounded
from app.breaker import BreakerKey, Breakers
from app.clock import Clock
from app.errors import BrokerError, ProviderUnavailable, Sent, UpstreamError
from app.grants.grant import GrantKey, LeanGrant, not_found
from app.grants.refresh import Refresher
from app.grants.token import Need, Token
from app.oauth.client import OAuthClient, OAuthClients
from app.oauth.door import Door
from app.oauth.exchange import Exchange
from app.oauth.wire import HttpAnswer, HttpRequest, StreamRequest
from app.resilience import Backoff

MAX_API_ANSWER_BYTES = 16 * 1024 * 1024  # a page of a list, read whole
_PATIENCE_SECONDS = 30.0  # of who does not say how long it can wait, with limits
_REFUSED_SECONDS = 60.0
_REFUSED_MOST = 10_000


@dataclass(frozen=True)
class Opened:
    """An answer of which the head is there; whoever has it closes it. `attempts`: requests that were sent for it."""

    exchange: Exchange = field(repr=False)
    attempts: int
    grant: LeanGrant


class ApiCaller:
    """Answers what the provider said. The token stays in here."""

    def __init__(
        self,
        refresher: Refresher,
        clients: OAuthClients,
        breakers: Breakers,
        door: Door,
        clock: Clock,
        *,
        backoff: Backoff,
        pacing: Pacing | None = None,
        max_bytes: int = MAX_API_ANSWER_BYTES,
    ) -> None:
        """`max_bytes`: of an answer that is read as it comes."""
        self._refresher = refresher
        self._clients = clients
        self._breakers = breakers
        self._door = door
        self._clock = clock
        self._backoff = backoff
        self._pacing = pacing or Unpaced()
        self._max_bytes = max_bytes
        # Generations, and when: tokens that were made for an upload's next time, and those that were refused at birth.
        self._renewed: Bounded[UUID, tuple[int, float]] = Bounded(_REFUSED_MOST)
        self._refused: Bounded[UUID, tuple[int, float]] = Bounded(_REFUSED_MOST)

    @property
    def attempts(self) -> int:
        """Tries of a call that does not say how many."""
        return self._backoff.attempts

    async def call(self, key: GrantKey, request: HttpRequest, *, repeatable: bool = True) -> HttpAnswer:
        """The answer, whole. One of 401 has been asked for again with a newer token; it stands where that was refused as
        well.

        `repeatable`: whether the request may take effect twice; any other is repeated only where it was never sent.
        Raises what `Refresher.fresh` raises, and ProviderUnavailable for 5xx and where nothing came back. `sent` of what is
        raised is about this request: NOT_SENT for lack of a token, ANSWERED where one of 401 could not be had anew.
        """
        manners = Manners(self._backoff.attempts, repeatable=repeatable)
        return await self._answer(key, Conversation(request, manners, self._send, _keep, self._clock))

    async def open(
        self, key: GrantKey, request: StreamRequest, manners: Manners, *, grant_id: UUID | None = None
    ) -> Opened:
        """The answer whatever its status, as soon as its head is there: the last one, where none was any better.
        `grant_id`: the token of no other grant goes with it.

        Raises what `Refresher.fresh` raises, GrantNotFound where the key leads to another grant by now, UpstreamError where
        nothing came back or it cannot be passed on, and what made the source of an upload break off.
        """
        talk = Conversation(request, manners, self._open, Exchange.close, self._clock, grant_id=grant_id)
        try:
            exchange = await self._answer(key, talk)
        except _Failed:
            assert talk.failed is not None
            exchange = talk.failed
        assert talk.grant is not None
        return Opened(exchange, talk.attempts, talk.grant)

    async def _answer(self, key: GrantKey, talk: Conversation[R, A]) -> A:
        client = self._clients.get(key.provider)
        try:
            token = await self._refresher.fresh(key, Need(), wait=talk.wait)
        except UpstreamError as error:
            raise error.of(Sent.NOT_SENT) from error
        answer = await self._asked(client, talk, token)
        if answer.status != 401 or not talk.manners.renews or self._is_in(self._refused, token):
            return answer
        if talk.is_spent:  # the caller can send it again, and finds a token that works
            await self._renewed_for_the_next(key, talk, token, answer)
            return answer
        talk.drop(answer)
        try:
            token = await self._refresher.force(key, generation=token.grant.generation, wait=talk.wait)
        except UpstreamError as error:
            raise error.of(Sent.ANSWERED) from error
        answer = await self._asked(client, talk, token)
        if answer.status == 401:
            self._note(self._refused, token)
        return answer

    async def _renewed_for_the_next(
        self, key: GrantKey, talk: Conversation[R, A], token: Token, answer: A
    ) -> None:
        if self._is_in(self._renewed, token):
            self._note(self._refused, token)
            return
        try:
            with suppress(BrokerError):
                made = await self._refresher.force(key, generation=token.grant.generation, wait=talk.wait)
                self._note(self._renewed, made)
        except BaseException:
            talk.drop(answer)
            raise

    def _note(self, those: Bounded[UUID, tuple[int, float]], token: Token) -> None:
        those.put(token.grant.id, (token.grant.generation, self._clock.monotonic()))

    def _is_in(self, those: Bounded[UUID, tuple[int, float]], token: Token) -> bool:
        """Whether it was noted there a moment ago: then another token helps nobody for a while."""
        generation, at = those.get(token.grant.id, (0, 0.0))
        return generation == token.grant.generation and self._clock.monotonic() < at + _REFUSED_SECONDS

    async def _asked(self, client: OAuthClient, talk: Conversation[R, A], token: Token) -> A:
        """One operation of the breaker, however many tries it takes. Raises GrantNotFound before any of them."""
        if talk.grant_id not in (None, token.grant.id):
            raise not_found(token.grant.key)
        talk.grant, talk.request = token.grant, _authorized(client, talk.request, token)
        try:
            with self._breakers.operation(_breaker(client, talk.request.url)) as is_probe:
                return await self._tried(client, talk, is_probe)
        except _OutOfTime as error:
            raise error.error from error
        except UpstreamError as error:
            grant = token.grant
            error.about(provider=client.name, user_id=grant.key.user_id, grant_id=grant.id)
            raise

    async def _tried(self, client: OAuthClient, talk: Conversation[R, A], is_probe: bool) -> A:
        """Raises _Failed with the last answer, where the provider failed."""
        assert talk.grant is not None
        while True:
            left = talk.left()
            await self._pacing.admit(
                client, talk.grant.id, within=_PATIENCE_SECONDS if left is None else left
            )
            heard = await self._heard(client, talk)
            self._heed(client, talk, heard)
            delay = None if is_probe or talk.is_spent else talk.pause(self._backoff, heard)
            if delay is None:
                if isinstance(heard, UpstreamError):
                    raise heard
                if is_failure(heard.status):
                    talk.failed = heard
                    raise _Failed(client, heard)
                return heard
            if not isinstance(heard, UpstreamError):
                talk.drop(heard)
            await self._clock.sleep(delay)

    def _heed(self, client: OAuthClient, talk: Conversation[R, A], heard: A | UpstreamError) -> None:
        """A pause is everybody's. Who has a way of its own with 429 goes by that where the API has no limits that we know."""
        if isinstance(heard, UpstreamError) or heard.status != 429 or talk.grant is None:
            return
        seconds = heard.retry_after()
        if seconds and (talk.manners.waits_out or client.provider.api.is_limited):
            self._pacing.held(client, talk.grant.id, seconds)

    async def _heard(self, client: OAuthClient, talk: Conversation[R, A]) -> A | UpstreamError:
        """What came of one try. Raises _OutOfTime where it was the caller's time that did not suffice."""
        left, most = talk.left(), self._door.timeout_seconds
        seconds = most if left is None else min(most, left)
        talk.attempts += 1
        talk.tries += 1
        try:
            return await talk.ask(client, talk.request, seconds)
        except ProviderUnavailable as error:
            if error.provider_code == "timeout" and seconds < most:
                raise _OutOfTime(error) from error
            return error

    async def _send(self, client: OAuthClient, request: HttpRequest, _seconds: float) -> HttpAnswer:
        return await self._door.send(client, request)

    async def _open(self, client: OAuthClient, request: StreamRequest, seconds: float) -> Exchange:
        return await self._door.open(client, request, seconds=seconds, max_bytes=self._max_bytes)


class _Failed(ProviderUnavailable):
    """The provider answered that it failed."""

    def __init__(self, client: OAuthClient, answer: HttpAnswer | Exchange) -> None:
        super().__init__(
            f"{client.title} cannot answer at the moment. Your connection is kept; try again shortly.",
            provider=client.name,
            sent=Sent.UNKNOWN,
            provider_code=f"http_{answer.status}",
            retry_after=answer.retry_after(),
        )


class _OutOfTime(Exception):
    """The caller's time is over before the provider's: that tells nothing of the provider."""

    def __init__(self, error: ProviderUnavailable) -> None:
        super().__init__(str(error))
        self.error = error


def _keep(_answer: HttpAnswer) -> None:
    """Nothing has to be given back."""


def _breaker(client: OAuthClient, url: str) -> BreakerKey:
    return BreakerKey(client.name, "api", urlsplit(url).netloc)


def _authorized(client: OAuthClient, request: R, token: Token) -> R:
    given = {name.lower() for name in request.headers}
    defaults = {"Accept-Encoding": "gzip", **client.provider.api.headers}
    return replace(
        request,
        headers={
            **{name: value for name, value in defaults.items() if name.lower() not in given},
            **request.headers,
            "Authorization": f"Bearer {token.access_token}",  # RFC 6750 section 2.1
        },
    )
