"""The gateway with a memory: what was answered a moment ago is answered again, what several ask at once is asked once.

GET, kept and good                              hit           nobody is asked
GET, kept, its time is over, has a validator    miss          asked whether it still is so (RFC 9111 section 4.3)
GET, the same is in flight                      coalesced     waits for that answer
GET                                             miss
a body, a range, no-store, any other method     bypass
what may have changed something                 bypass        the grant's answers there are forgotten before it is answered
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from app.clock import Clock
from app.errors import (
    BrokerError,
    InsufficientScope,
    ProviderUnavailable,
    ReconnectRequired,
    Sent,
    ValidationFailed,
)
from app.gateway import headers
from app.gateway.answers import KeptAnswers, Watch
from app.gateway.asked import Asked
from app.gateway.call import Answer, Call
from app.gateway.counts import Outcome
from app.gateway.directives import Wish, may_be_kept, streams, wish_of
from app.gateway.flight import Flight, Flights, Landed, Rest, Whole
from app.gateway.gateway import BODY_SECONDS, Gateway, Reply, in_one_piece
from app.gateway.given import Given
from app.gateway.kept import Kept
from app.gateway.landing import age_of, gathered, is_of, seen_by
from app.gateway.meant import Meant
from app.gateway.target import base_of
from app.grants.grant import Status
from app.grants.known import KnownGrants
from app.oauth.client import OAuthClients
from app.oauth.resources import written

# RFC 9110 section 9.2.1, and those that others define to be safe (RFC 4918, RFC 3253, RFC 5323).
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY"})
_EARLY_SECONDS = 0.05  # by which a clock may be late, or a timer early
_GRACE_SECONDS = 0.5  # so that the call itself says first that it took too long
# Nothing was sent, or the provider refused it.
_NOT_DONE = (ValidationFailed, ReconnectRequired, InsufficientScope)
_CONDITIONS = frozenset({"if-none-match", "if-modified-since"})


class CachedGateway:
    """As `Gateway`, whose promises and errors are its own."""

    def __init__(
        self, gateway: Gateway, known: KnownGrants, clients: OAuthClients, answers: KeptAnswers, clock: Clock
    ) -> None:
        self._gateway = gateway
        self._known = known
        self._clients = clients
        self._answers = answers
        self._clock = clock
        self._flights = Flights()

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[Given]:
        """The answer. Leaving ends it, unless others wait for it."""
        async with AsyncExitStack() as leaving:
            given = await self._given(call, leaving)
            self._answers.counts.add(call.key.provider, given.outcome)
            yield given

    async def whole(self, call: Call, *, most: int, seconds: float = BODY_SECONDS) -> Answer:
        """The answer with at most `most` bytes of its body, in so many seconds from its head on."""
        async with self.open(call) as given:
            return await in_one_piece(given, most=most, seconds=seconds)

    async def asked(self, call: Call, wish: Wish) -> Asked | None:
        """The call as something that may be kept or shared; None where it may not."""
        if wish.passes:
            return None
        client = self._clients.get(call.key.provider)
        known = await self._known.get(call.key)
        seconds = client.kept_seconds(call.target) if self._answers.max_bytes else 0
        if known.is_stale or known.value.status is not Status.ACTIVE or (wish.conditions and not seconds):
            return None
        sent = headers.sent(call.headers, client.provider.api.headers).items()
        return Asked.of(known.value, base_of(client), call.target, sent=sent, wish=wish, seconds=seconds)

    def kept(self, asked: Asked) -> Kept | None:
        """What is kept, where it may be answered as it is."""
        kept = self._answers.get(asked.key) if asked.seconds else None
        is_good = kept is not None and self._answers.is_good(kept, seconds=asked.good_seconds)
        return kept if is_good else None

    def hit(self, asked: Asked) -> Whole | None:
        """The same, as whoever asks gets it."""
        kept = self.kept(asked)
        if kept is None:
            return None
        age = kept.age_at(self._clock.monotonic())
        return seen_by(asked.wish, Whole(200, kept.headers, kept.body, 0, asked.grant, age))

    async def _given(self, call: Call, leaving: AsyncExitStack) -> Given:
        wish = wish_of(call.method, call.headers, has_body=call.body != b"")
        asked = await self.asked(call, wish)
        if asked is None:
            return await self._passed(call, leaving)
        if (whole := self.hit(asked)) is not None:
            given = Given.of_whole(whole, Outcome.HIT)
            return given.without_body() if call.method == "HEAD" else given
        if call.method == "HEAD":
            return await self._passed(call, leaving)
        return await self._fetched(call, asked, leaving)

    async def _passed(self, call: Call, leaving: AsyncExitStack) -> Given:
        """By whatever is kept."""
        if call.method in _SAFE:
            reply = await leaving.enter_async_context(self._gateway.open(call))
        else:
            reply = await self._written(call, leaving)
        return Given.of_reply(reply, Outcome.BYPASS)

    async def _written(self, call: Call, leaving: AsyncExitStack) -> Reply:
        """Whatever came of it, but for a plain refusal, it may have changed what is kept (RFC 9111 section 4.4), and what is
        about to arrive. Where nobody knows what came of it, it may do so yet."""
        client = self._clients.get(call.key.provider)
        grant = (await self._known.get(call.key)).value
        is_refused, is_unsure = False, True
        try:
            reply = await leaving.enter_async_context(self._gateway.open(call))
            is_refused, is_unsure = 400 <= reply.status < 500, reply.status >= 500
            return reply
        except _NOT_DONE:
            is_refused = True
            raise
        finally:
            if not is_refused:
                below = written(client.resources, call.target)
                meant = Meant(below, grant_id=str(grant.id), is_unsure=is_unsure)
                await asyncio.shield(self._answers.forget(meant))

    async def _fetched(self, call: Call, asked: Asked, leaving: AsyncExitStack) -> Given:
        landed, outcome = await self._landed_in_time(call, asked)
        if isinstance(landed, Whole):
            return Given.of_whole(seen_by(asked.wish, landed), outcome)
        taken = landed.take()
        if taken is None:
            reply = await leaving.enter_async_context(self._gateway.open(call))
            return Given.of_reply(reply, Outcome.MISS)
        reply, its_end = taken
        leaving.push_async_callback(its_end.aclose)
        return Given.of_reply(reply, outcome)

    async def _landed_in_time(self, call: Call, asked: Asked) -> tuple[Landed, Outcome]:
        """Who has joined a flight, and has time left when that of who began it is over, joins or begins the next."""
        now = asyncio.get_running_loop().time
        until = now() + call.within
        while True:
            flight, outcome = self._flight(call, asked)
            try:
                return await flight.landed(within=until - now() + _GRACE_SECONDS), outcome
            except TimeoutError:
                raise self._too_late(call) from None
            except BrokerError:
                is_out_of_time = flight.seconds >= call.within - _EARLY_SECONDS
                if outcome is Outcome.MISS or not is_out_of_time or until - now() < _GRACE_SECONDS:
                    raise

    def _flight(self, call: Call, asked: Asked) -> tuple[Flight, Outcome]:
        """The one that is under way; else one that begins, for as long as whoever will join it may wait."""
        key = _flight_of(call, asked)
        flight = None if asked.wish.anew else self._flights.get(key)
        if flight is not None and self._answers.may_be_shared(flight.watch):
            return flight, Outcome.COALESCED
        watch = self._answers.begin(asked.key.grant_id, call.key, asked.path)
        flight = Flight(self._fly(call, asked, watch), watch)
        if not asked.wish.anew:
            self._flights.add(key, flight)
        return flight, Outcome.MISS

    async def _fly(self, call: Call, asked: Asked, watch: Watch) -> Landed:
        """One call, for all who wait."""
        kept = self._answers.get(asked.key) if asked.seconds else None
        plain = tuple(each for each in call.headers if each[0] not in _CONDITIONS)
        validators = () if kept is None else kept.validators
        async with AsyncExitStack() as leaving:
            try:
                opened = self._gateway.open(replace(call, headers=(*plain, *validators)))
                reply = await leaving.enter_async_context(opened)
                if validators and reply.status == 304 and not is_of(asked, reply):
                    # Another account's: that it is the same with that one tells nothing of what this one has.
                    opened = self._gateway.open(replace(call, headers=plain))
                    reply = await leaving.enter_async_context(opened)
                if streams(reply.headers):
                    return Rest(reply, leaving.pop_all())
                body = await gathered(reply)
                if body is None:
                    return Rest(reply, leaving.pop_all())
                return self._landed(asked, watch, kept, reply, body)
            finally:
                self._flights.remove(_flight_of(call, asked), watch)
                self._answers.end(watch)

    def _landed(self, asked: Asked, watch: Watch, kept: Kept | None, reply: Reply, body: bytes) -> Whole:
        """The whole answer, kept if it may be."""
        is_confirmed = kept is not None and reply.status == 304 and is_of(asked, reply)
        if kept is not None and is_confirmed:
            self._answers.counts.add(asked.grant.key.provider, Outcome.REVALIDATED)
            told = kept.confirmed(
                reply.headers, asked_at=watch.begun_at, age=age_of(reply), seconds=asked.seconds
            )
        else:
            own = tuple(each for each in reply.headers if each[0] != "content-length")
            told = Kept(
                asked.key,
                asked.grant.key,
                asked.path,
                own,
                body,
                watch.begun_at,
                age_of(reply),
                asked.seconds,
            )
        status = 200 if is_confirmed else reply.status
        # The answer may be of another account than the one that was known a moment ago.
        if asked.seconds and is_of(asked, reply) and may_be_kept(status, told.headers):
            self._answers.keep(told, watch)
        elif kept is not None and reply.status < 500:
            self._answers.drop(kept)
        return Whole(status, told.headers, told.body, reply.attempts, reply.grant)

    def _too_late(self, call: Call) -> ProviderUnavailable:
        client = self._clients.get(call.key.provider)
        return ProviderUnavailable(
            f"{client.title} did not answer in time. Your connection is kept; try again shortly.",
            provider=client.name,
            sent=Sent.UNKNOWN,
            provider_code="timeout",
        )


def _flight_of(call: Call, asked: Asked) -> Hashable:
    """What is asked, how often at most and for how long: who would have it otherwise asks for himself."""
    return asked.key, call.attempts, call.within
