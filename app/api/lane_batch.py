"""The fast lane for many tokens at once: a batch all of whose tokens are in memory, or can be read by one statement. Any
other is left to the route, whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.types import Message, Receive, Scope, Send

from app.api.batch import MOST_ITEMS, BatchBody
from app.api.plain import Shown
from app.api.ready import Ready, Shelf, Wanted
from app.api.untold import Untold
from app.api.whole import Whole
from app.bounded import Recurring
from app.clock import Clock
from app.consumers.authenticate import Authenticator
from app.consumers.consumer import Consumer, digest_of
from app.consumers.limits import RateLimiter
from app.errors import BrokerError
from app.grants.grant import DEFAULT_ACCOUNT
from app.grants.token import DEFAULT_MIN_TTL

_ROUTES: Mapping[bytes, str] = {
    b"/tokens/batch": "/tokens/batch",
    b"/api/v1/tokens/batch": "/api/v1/tokens/batch",
}
_BETWEEN = b'},{"status":200,"token":'
_KIND = b"application/json"
_LONGEST = 64 * 1024
_REMEMBERED = 200
_NAMES = {"provider", "user_id", "account", "min_ttl", "scope"}
_MIN_TTL = int(DEFAULT_MIN_TTL.total_seconds())


class BatchLane:
    """Answers what it can, and leaves all else untouched."""

    def __init__(
        self,
        shelf: Shelf,
        untold: Untold,
        authenticator: Authenticator,
        limiter: RateLimiter,
        clock: Clock,
        whole: Whole,
    ) -> None:
        self._shelf = shelf
        self._untold = untold
        self._authenticator = authenticator
        self._limiter = limiter
        self._clock = clock
        self._whole = whole
        # What is asked for by a body of these bytes, with this key, which services ask again and again.
        self._wanted: Recurring[tuple[bytes, bytes], Sequence[Wanted]] = Recurring(_REMEMBERED)

    async def answers(self, scope: Scope, receive: Receive, send: Send, shown: Shown) -> Receive | None:
        """As `Lane.answers`; what was received here is received again by the route."""
        route = _ROUTES.get(scope["raw_path"])
        if route is None or scope["query_string"] or shown.kind != _KIND or not _is_short(shown.length):
            return receive
        began, messages = self._clock.monotonic(), await _received(receive)
        # Only now, as on the route: a body may take its time, in which a key may be revoked and a token end.
        consumer = await self._authenticator.at_hand(shown.digest)
        body = b"".join([message.get("body", b"") for message in messages])
        wanted = [] if consumer is None else self._wanted_by(body, shown.digest)
        if consumer is None or not wanted:
            return _again(messages, receive)
        found = self._shelf.kept(wanted, consumer)
        if len(found) < len(wanted):
            found = await self._made(body, wanted, consumer)
        if not found or not self._limiter.admits(consumer):
            return _again(messages, receive)
        now = self._clock.monotonic()
        request_id = shown.request_id or self._untold.new_id()
        self._untold.given(found, request_id)
        tokens = _BETWEEN.join([each.body(now) for each in found])
        answer = b'{"items":[{"status":200,"token":%s}]}' % tokens
        self._untold.answered(
            consumer, "POST", route, request_id, began,
            texts={}, numbers={"items": str(len(found)), "failed": "0"},
        )  # fmt: skip
        await self._whole.send(scope, send, answer, request_id)
        return None

    def _wanted_by(self, body: bytes, digest: bytes) -> Sequence[Wanted]:
        words = (digest, digest_of(body))
        found = self._wanted.get(words)
        if found is None:
            found = _wanted(body, digest)
            self._wanted.put(words, found)
        return found

    async def _made(self, body: bytes, wanted: Sequence[Wanted], consumer: Consumer) -> list[Ready]:
        """All, those that are not there built from what one statement reads; none where one of them is the route's."""
        try:
            BatchBody.model_validate_json(body)
        except (ValidationError, BrokerError):
            return []
        return await self._shelf.make_all(wanted, consumer)


def _is_short(length: bytes | None) -> bool:
    return length is not None and length.isdigit() and len(length) <= 5 and int(length) <= _LONGEST


def _wanted(body: bytes, digest: bytes) -> list[Wanted]:
    """What is asked for, where it is written as plainly as can be; else nothing."""
    try:
        asked = from_json(body, cache_strings="keys")
        items = asked["items"]
        if len(asked) != 1 or type(items) is not list or not 1 <= len(items) <= MOST_ITEMS:
            return []
        return [_item(each, digest) for each in items]
    except (ValueError, LookupError, TypeError, AttributeError):
        return []


def _item(given: Any, digest: bytes) -> Wanted:
    provider, user_id = given["provider"], given["user_id"]
    if type(provider) is not str or type(user_id) is not str:
        raise ValueError
    if len(given) == 2:
        return (digest, provider, user_id, DEFAULT_ACCOUNT, _MIN_TTL, "")
    account, min_ttl = given.get("account", DEFAULT_ACCOUNT), given.get("min_ttl", _MIN_TTL)
    scope = given.get("scope", "")
    is_plain = type(account) is str and type(min_ttl) is int and type(scope) is str
    if not is_plain or not given.keys() <= _NAMES:
        raise ValueError
    return (digest, provider, user_id, account, min_ttl, scope)


async def _received(receive: Receive) -> Sequence[Message]:
    """All of the body, or as far as the client sent it before it hung up. How long that may take the server sees to."""
    messages = [await receive()]
    while messages[-1].get("more_body"):
        messages.append(await receive())
    return messages


def _again(messages: Sequence[Message], receive: Receive) -> Receive:
    """Receives these once more, and then what follows them."""
    unread = deque(messages)

    async def again() -> Message:
        return unread.popleft() if unread else await receive()

    return again
