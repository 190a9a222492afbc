"""Answers to one consumer's requests for one token, built once and given until anything about them changes.

`Ready` is one, `Shelf` has those that were given lately. It is what decides that a token may be answered from memory: by the
consumer's rights, the grant as it is known, and what the token has to be good for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from sys import intern

from app.api.services import Services
from app.api.tokens import disclosure_of, token_answer
from app.audit.event import Disclosure
from app.bounded import Bounded
from app.consumers.consumer import Consumer, Scope
from app.errors import BrokerError
from app.grants.grant import Grant, GrantKey, absent_twin
from app.grants.token import Need, Token, at_hand_until

# Outside of strings only: in them quotes are escaped.
_EXPIRES_IN = re.compile(rb'(?<=,"expires_in":)(?:\d+|null)(?=,)')
_REMEMBERED = 10_000


# The digest of the caller's key; provider, user and account; `min_ttl` in seconds, and scope. A plain tuple, since many are
# made for one answer.
Wanted = tuple[bytes, str, str, str, int, str]


@dataclass(slots=True)
class Ready:
    """`state` is that of the known grants when it was last looked at. Times are by the monotonic clock, infinite for never.
    `hits` are the answers that nobody was told of yet."""

    consumer: Consumer
    grant: Grant
    key: GrantKey
    text: bytes  # the answer, with the seconds that are left in it from `start` to `end`
    start: int
    end: int
    text_until: float  # then there is one second less
    state: int
    until: float
    looked_at_until: float  # by then what does not depend on PostgreSQL has to be looked at again
    expires_at: float
    disclosure: Disclosure
    hits: int = 0
    first_request_id: str | None = None

    def body(self, now: float) -> bytes:
        """The answer; at a time when it is good."""
        if now >= self.text_until:
            left = int(self.expires_at - now)
            digits = b"%d" % left
            self.text = b"%s%s%s" % (self.text[: self.start], digits, self.text[self.end :])
            self.end, self.text_until = self.start + len(digits), self.expires_at - left
        return self.text


class Shelf:
    """Has a token in the clear only in an answer, and an answer for as long as its grant is known: for 5 seconds, and until
    the next sweep. Then it is built anew."""

    def __init__(self, services: Services) -> None:
        self._known = services.known
        self._refresher = services.refresher
        self._clients = services.clients
        self._clock = services.clock
        self._ready: Bounded[Wanted, Ready] = Bounded(_REMEMBERED)

    def kept(self, wanted: Sequence[Wanted], consumer: Consumer, now: float) -> list[Ready]:
        """Those that are there and good: all, or as far as the first that is not."""
        kept, state, at = [], self._known.state(), self._ready.get
        for each in wanted:
            found = at(each)
            if found is None:
                break
            is_as_it_was = found.state == state and found.consumer is consumer and now < found.until
            if not is_as_it_was and not self._is_good(found, consumer, state, now):
                break
            kept.append(found)
        return kept

    def sweep(self) -> None:
        """Forgets what is not good any more: tokens in the clear are in memory for no longer than they are of use."""
        now = self._clock.monotonic()
        for wanted, found in list(self._ready.items()):
            if now >= found.until or not self._known.has(found.grant):
                del self._ready[wanted]

    def _is_good(self, found: Ready, consumer: Consumer, state: int, now: float) -> bool:
        """Whether all that it was built from is still so."""
        known = self._known.peek(found.key)
        if known is None or known.value is not found.grant or consumer != found.consumer:
            return False
        found.state, found.consumer = state, consumer
        found.until = min(known.until, found.looked_at_until)
        return now < found.until

    async def load(self, wanted: Sequence[Wanted], consumer: Consumer) -> None:
        """Reads what is not known of them by one statement."""
        await self._known.load([self._seen(_key(*each[1:4]), consumer) for each in wanted])

    async def make(self, wanted: Wanted, consumer: Consumer) -> Ready | None:
        """Built now, from what is known or read; None where that is the route's to answer."""
        _, *names, min_ttl, scope = wanted
        key, need = _key(*names), Need(min_ttl=timedelta(seconds=min_ttl))
        try:
            consumer.require(Scope.TOKENS_READ)
            self._clients.get(key.provider)
            key = self._seen(key, consumer)
            known = await self._known.get(key)
            token = None
            if not known.is_stale:
                token = self._refresher.at_hand(known.value, need, scope=scope)
        except BrokerError:
            return None
        if token is None:
            return None
        made = self._built(consumer, key, need, token)
        self._ready.put(wanted, made)
        return made

    def _seen(self, key: GrantKey, consumer: Consumer) -> GrantKey:
        """A foreign one is looked for, too, as one that is absent: so that it costs what those cost."""
        return key if consumer.may_see(key.provider, key.user_id) else absent_twin(key)

    def _built(self, consumer: Consumer, key: GrantKey, need: Need, token: Token) -> Ready:
        grant, now, monotonic = token.grant, self._clock.now(), self._clock.monotonic()
        ends_at, known = at_hand_until(grant, need), self._known.peek(key)
        until = monotonic + (ends_at - now).total_seconds() if ends_at is not None else math.inf
        text, left = token_answer(token, now).model_dump_json().encode(), grant.remaining(now)
        place = _EXPIRES_IN.search(text)
        assert place is not None
        return Ready(
            consumer=consumer,
            grant=grant,
            key=key,
            text=text,
            start=place.start(),
            end=place.end(),
            text_until=math.inf if left is None else monotonic,
            state=self._known.state(),
            until=monotonic if known is None or known.value is not grant else min(until, known.until),
            looked_at_until=until,
            expires_at=math.inf if left is None else monotonic + left.total_seconds(),
            disclosure=disclosure_of(consumer, token),
        )


def _key(provider: str, user_id: str, account: str) -> GrantKey:
    """It is kept with the grant, and there are many: what is the same in most of them is there once."""
    return GrantKey(intern(provider), user_id, intern(account))
