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
from app.clock import Clock
from app.consumers.consumer import Consumer
from app.consumers.limits import RateLimiter
from app.errors import BrokerError
from app.grants.grant import DEFAULT_ACCOUNT
from app.grants.token import DEFAULT_MIN_TTL

_ROUTES: Mapping[bytes, str] = {
    b"/tokens/batch": "/tokens/batch",
    b"/api/v1/tokens/batch": "/api/v1/tokens/batch",
}
_KIND = b"application/json"
_LONGEST = 64 * 1024
_NAMES = {"provider", "user_id", "account", "min_ttl", "scope"}
_MIN_TTL = int(DEFAULT_MIN_TTL.total_seconds())


class BatchLane:
    """Answers what it can, and leaves all else untouched."""

    def __init__(
        self,
        shelf: Shelf,
        untold: Untold,
        limiter: RateLimiter,
        clock: Clock,
        fields: Sequence[tuple[bytes, bytes]],
    ) -> None:
        self._shelf = shelf
        self._untold = untold
        self._limiter = limiter
        self._clock = clock
        self._fields = fields

    async def answers(
        self, scope: Scope, receive: Receive, send: Send, shown: Shown, consumer: Consumer
    ) -> Receive | None:
        """As `Lane.answers`; what was received here is received again by the route."""
        route = _ROUTES.get(scope["raw_path"])
        if route is None or scope["query_string"] or shown.kind != _KIND or not _is_short(shown.length):
            return receive
        began, messages = self._clock.monotonic(), await _received(receive)
        body = b"".join([message.get("body", b"") for message in messages])
        wanted = _wanted(body, shown.digest)
        found = self._shelf.kept(wanted, consumer, began)
        self._untold.kept(len(found))
        if len(found) < len(wanted):
            found = await self._made(body, wanted, consumer)
        if not found or not self._limiter.admits(consumer):
            return _again(messages, receive)
        request_id = shown.request_id or self._untold.new_id()
        self._untold.given(found, request_id)
        tokens = b",".join([b'{"status":200,"token":%s}' % each.body(began) for each in found])
        body = b'{"items":[%s]}' % tokens
        self._untold.answered(
            consumer, "POST", route, request_id, began,
            texts={}, numbers={"items": str(len(found)), "failed": "0"},
        )  # fmt: skip
        fields = [*self._fields, (b"content-length", b"%d" % len(body)), (b"x-request-id", request_id)]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body})
        return None

    async def _made(self, body: bytes, wanted: Sequence[Wanted], consumer: Consumer) -> list[Ready]:
        """All, those that are not there built from what one statement reads; none where one of them is the route's."""
        try:
            BatchBody.model_validate_json(body)
        except (ValidationError, BrokerError):
            return []
        await self._shelf.load(wanted, consumer)
        made = [await self._shelf.make(each, consumer) for each in wanted]
        return [each for each in made if each is not None] if None not in made else []


def _is_short(length: bytes | None) -> bool:
    return length is not None and length.isdigit() and int(length) <= _LONGEST


def _wanted(body: bytes, digest: bytes) -> list[Wanted]:
    """What is asked for, where it is written as plainly as can be; else nothing."""
    try:
        items = _items(from_json(body, cache_strings="keys"))
        return [_item(each, digest) for each in items] if 1 <= len(items) <= MOST_ITEMS else []
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []


def _items(given: Any) -> Sequence[Any]:
    if given.keys() != {"items"} or type(given["items"]) is not list:
        raise ValueError
    items: Sequence[Any] = given["items"]
    return items


def _item(given: Any, digest: bytes) -> Wanted:
    provider, user_id, account, min_ttl, scope = (
        given["provider"],
        given["user_id"],
        DEFAULT_ACCOUNT,
        _MIN_TTL,
        "",
    )
    if len(given) > 2:
        account, min_ttl = given.get("account", account), given.get("min_ttl", min_ttl)
        scope = given.get("scope", scope)
        if (
            not given.keys() <= _NAMES
            or type(min_ttl) is not int
            or type(account) is not str
            or type(scope) is not str
        ):
            raise ValueError
    if type(provider) is not str or type(user_id) is not str:
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
