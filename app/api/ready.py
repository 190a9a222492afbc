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
from app.grants.grant import GrantKey, LeanGrant, absent_twin
from app.grants.token import Need, Token, at_hand_until
from app.remembered import Fresh

# Outside of strings only: in them quotes are escaped.
_EXPIRES_IN = re.compile(rb'(?<=,"expires_in":)(?:\d+|null)(?=,)')
_REMEMBERED = 10_000
_LONGEST = 8192  # bytes of an answer that is kept


# The digest of the caller's key; provider, user and account; `min_ttl` in seconds, and scope. A plain tuple, since many are
# made for one answer.
Wanted = tuple[bytes, str, str, str, int, str]


@dataclass(slots=True)
class Ready:
    """`state` is that of the known grants when it was last looked at. Times are by the monotonic clock, infinite for never.
    `hits` are the answers that nobody was told of yet."""

    consumer: Consumer
    grant: LeanGrant
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

    def kept(self, wanted: Sequence[Wanted], consumer: Consumer) -> list[Ready]:
        """Those that are there and good: all, or as far as the first that is not. One by itself is read anew behind the
        answer as it grows old; of many all that lacks is read at once, by `make_all`."""
        look = self._known.peek if len(wanted) == 1 else self._known.glance
        kept, at = [], self._ready.get
        now, state = self._clock.monotonic(), self._state()
        for each in wanted:
            found = at(each)
            if found is None:
                break
            is_as_it_was = found.state == state and found.consumer is consumer and now < found.until
            if not is_as_it_was and not self._is_good(found, consumer, look(found.key)):
                break
            kept.append(found)
        return kept

    def sweep(self) -> None:
        """Forgets what is not good any more: tokens in the clear are in memory for no longer than they are of use."""
        now = self._clock.monotonic()
        for wanted, found in list(self._ready.items()):
            if now >= found.until or not self._known.has(found.grant):
                del self._ready[wanted]

    async def make(self, wanted: Wanted, consumer: Consumer) -> Ready | None:
        """Built now, from what is known or read; None where that is the route's to answer."""
        key = self._key_of(wanted, consumer)
        if key is None:
            return None
        try:
            known = await self._known.get(key)
        except BrokerError:
            return None
        return None if known.is_stale else self._made(wanted, consumer, key, known.value)

    async def make_all(self, wanted: Sequence[Wanted], consumer: Consumer) -> list[Ready]:
        """All of them, what is not known read by one statement; none where one of them is the route's to answer."""
        keys = [key for key in (self._key_of(each, consumer) for each in wanted) if key is not None]
        if len(keys) < len(wanted) or await self._known.load(keys):
            return []
        made = []
        for each, key in zip(wanted, keys, strict=True):
            known, found = self._known.glance(key), self._ready.get(each)
            if found is None or not self._is_good(found, consumer, known):
                found = None if known is None else self._made(each, consumer, key, known.value)
            if found is None:
                return []
            made.append(found)
        return made

    def _state(self) -> int:
        """Another number as soon as anything that answers are built from may be another, besides the consumer."""
        return self._known.state() + self._clients.turns

    def _is_good(self, found: Ready, consumer: Consumer, known: Fresh[LeanGrant] | None) -> bool:
        """Whether all that it was built from is still so, the grant by what is known of it."""
        if known is None or known.value is not found.grant or consumer != found.consumer:
            return False
        if found.key.provider not in self._clients:
            return False
        found.state, found.consumer = self._state(), consumer
        found.until = min(known.until, found.looked_at_until)
        return self._clock.monotonic() < found.until

    def _key_of(self, wanted: Wanted, consumer: Consumer) -> GrantKey | None:
        """Of the grant that is asked for; None where nothing of that kind may be. A foreign one is looked for, too, as one
        that is absent: so that it costs what those cost."""
        _, provider, user_id, account, *_ = wanted
        if not consumer.has(Scope.TOKENS_READ) or provider not in self._clients:
            return None
        # Kept with the grant, of which there are many: what is the same in most of them is there once.
        key = GrantKey(intern(provider), user_id, intern(account))
        return key if consumer.may_see(provider, user_id) else absent_twin(key)

    def _made(self, wanted: Wanted, consumer: Consumer, key: GrantKey, grant: LeanGrant) -> Ready | None:
        *_, min_ttl, scope = wanted
        need = Need(min_ttl=timedelta(seconds=min_ttl))
        try:
            token = self._refresher.at_hand(grant, need, scope=scope)
        except BrokerError:
            return None
        if token is None:
            return None
        made = self._built(consumer, key, need, token)
        if len(made.text) <= _LONGEST:
            self._ready.put(wanted, made)
        return made

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
            state=self._state(),
            until=monotonic if known is None or known.value is not grant else min(until, known.until),
            looked_at_until=until,
            expires_at=math.inf if left is None else monotonic + left.total_seconds(),
            disclosure=disclosure_of(consumer, token),
        )
