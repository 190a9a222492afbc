"""The fast lane of the gateway: a GET whose answer is kept, answered ahead of middleware, routing and validation.

A `Hit` is an answer to one consumer's very words, built once and given until anything about it changes: the key, its rights,
the grant as it is known, the registration, the answer that is kept. Anything but a plain GET that is a hit is the route's.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError
from starlette.types import Scope, Send

from app.api import headers
from app.api.passing import fields_of, read
from app.api.plain import Fields, Shown, shown_by
from app.api.proxy import ADDRESSED, NAME, TEMPLATES, use_of
from app.api.services import Services
from app.api.untold import Untold
from app.api.whole import EXTENSION, WriteWhole, lines_of
from app.audit.event import Disclosure
from app.bounded import Bounded
from app.consumers.consumer import Consumer
from app.consumers.consumer import Scope as Right
from app.errors import BrokerError, ValidationFailed
from app.gateway.asked import Asked
from app.gateway.call import Call
from app.gateway.counts import Outcome
from app.gateway.directives import wish_of
from app.gateway.kept import Kept
from app.gateway.target import base_of
from app.grants.grant import DEFAULT_ACCOUNT, GrantKey, LeanGrant
from app.metrics import PROXIED

PATHS = (b"/proxy/", b"/api/v1/proxy/")
# None of them makes the answer another one; and no key is kept here.
_ASIDE = frozenset(
    {
        b"authorization", b"x-api-key", b"x-request-id", b"x-correlation-id", b"traceparent", b"tracestate", b"baggage",
    }
)  # fmt: skip
_TRIES = frozenset({None, "0", "1", "2", "3", "4", "5"})
_REMEMBERED = 1_000
_LARGEST = 32 * 1024  # bytes of a body that is held for them
_LONGEST_WORDS = 2_000  # bytes of a request that is remembered as it was put

Words = tuple[bytes, bytes, Fields]


@dataclass(slots=True)
class Hit:
    """`head` stands before the age, `rest` behind it. `state` is that of what is known when it was last looked at; `until`,
    by the monotonic clock: when it has to be looked at again. `hits` are the answers that nobody was told of yet."""

    consumer: Consumer
    grant: LeanGrant
    asked: Asked
    kept: Kept
    route: str
    head: Fields
    rest: Fields
    head_lines: bytes
    rest_lines: bytes
    state: int
    until: float
    disclosure: Disclosure
    hits: int = 0
    first_request_id: str | None = None


class ProxyLane:
    """Answers what it can, and leaves all else untouched."""

    def __init__(self, services: Services, untold: Untold) -> None:
        self._authenticator = services.authenticator
        self._limiter = services.limiter
        self._clock = services.clock
        self._known = services.known
        self._clients = services.clients
        self._gateway = services.gateway
        self._answers = services.answers
        self._untold = untold
        self._always = headers.always(services.base_url)
        self._hits: Bounded[Words, Hit] = Bounded(_REMEMBERED)

    def at_once(self, target: bytes, fields: Fields, servers: Fields) -> bytes | None:
        """The whole answer (RFC 9112) to a GET over HTTP/1.1, where its words were answered before; else None. `servers`
        are the fields that the server adds."""
        if not target.startswith(PATHS):
            return None
        began, shown = self._clock.monotonic(), shown_by(fields)
        if shown is None or shown.length is not None:
            return None
        consumer = self._authenticator.peek(shown.digest)
        hit = self._hits.get(_words(shown, target, fields))
        if consumer is None or hit is None or not self._is_good(hit, consumer):
            return None
        if not self._limiter.admits(consumer):
            return None
        age, request_id = hit.kept.age_at(began), self._told(hit, shown, began)
        return b"%sage: %d\r\n%sx-request-id: %s\r\n%s\r\n%s" % (
            hit.head_lines, age, hit.rest_lines, request_id, lines_of(servers), hit.kept.body,
        )  # fmt: skip

    async def answers(self, scope: Scope, send: Send) -> bool:
        """Whether the request is answered herewith. Else nothing was done, besides reading what the route will read anyhow."""
        began, shown = self._clock.monotonic(), shown_by(scope["headers"])
        if scope["method"] != "GET" or shown is None or shown.length is not None:
            return False
        consumer = await self._authenticator.at_hand(shown.digest)
        made = None if consumer is None else await self._made(scope, consumer)
        if consumer is None or made is None or not self._limiter.admits(consumer):
            return False
        path, query = scope["raw_path"], scope["query_string"]
        words = _words(shown, b"%s?%s" % (path, query) if query else path, scope["headers"])
        if _size(words) <= _LONGEST_WORDS and len(made.kept.body) <= _LARGEST:
            self._hits.put(words, made)
        await self._send(scope, send, made, self._told(made, shown, began))
        return True

    def sweep(self) -> None:
        """Forgets what is not good any more, and the bodies with it."""
        for words, hit in list(self._hits.items()):
            if not self._answers.has(hit.kept) or not self._known.has(hit.grant):
                del self._hits[words]

    def _is_good(self, hit: Hit, consumer: Consumer) -> bool:
        """Whether all that it was built from is still so."""
        now, state = self._clock.monotonic(), self._state()
        if hit.state != state or hit.consumer is not consumer or now >= hit.until:
            known = self._known.peek(hit.grant.key)
            if known is None or known.value is not hit.grant or consumer != hit.consumer:
                return False
            if not self._is_registered_so(hit.asked):
                return False
            hit.state, hit.consumer, hit.until = self._state(), consumer, known.until
        return self._answers.has(hit.kept) and self._answers.is_good(hit.kept, seconds=hit.asked.good_seconds)

    def _is_registered_so(self, asked: Asked) -> bool:
        """Whether the registration leads to the same address, and lets the answer be kept for as long."""
        try:
            client = self._clients.get(asked.grant.key.provider)
            return (
                base_of(client) == asked.key.base and client.kept_seconds(asked.key.target) == asked.seconds
            )
        except BrokerError:
            return False

    def _state(self) -> int:
        """Another number as soon as anything that is built from may be another, besides the consumer and what is kept."""
        return self._known.state() + self._clients.turns

    async def _made(self, scope: Scope, consumer: Consumer) -> Hit | None:
        """None where there is none, or that is the route's to say."""
        found = self._call(scope, consumer)
        if found is None:
            return None
        call, route = found
        wish = wish_of(call.method, call.headers, has_body=False)
        if wish.anew or wish.conditions:
            return None
        try:
            asked = await self._gateway.asked(call, wish)
        except BrokerError:
            return None
        kept = None if asked is None else self._gateway.kept(asked)
        return None if asked is None or kept is None else self._built(consumer, asked, kept, route)

    def _call(self, scope: Scope, consumer: Consumer) -> tuple[Call, str] | None:
        """What is asked, and the template of its route; None for what is never kept, and what the route refuses."""
        raw, query = scope.get("raw_path") or b"", scope["query_string"]
        path = ADDRESSED.fullmatch(raw.decode()) if raw.isascii() and query.isascii() else None
        if path is None or not consumer.has(Right.PROXY):
            return None
        try:
            given = tuple(read(scope["headers"]))
            named = dict(given)
            account = named.get("x-broker-account")
            key = GrantKey(
                NAME.validate_python(path["provider"]),
                NAME.validate_python(path["user_id"]),
                DEFAULT_ACCOUNT if account is None else NAME.validate_python(account),
            )
        except (ValidationError, ValidationFailed):
            return None
        if key.provider not in self._clients or not consumer.may_see(key.provider, key.user_id):
            return None
        target = path["path"] or ""
        is_kept = self._clients.get(key.provider).kept_seconds(target) > 0
        if not is_kept or named.get("x-broker-retry") not in _TRIES:
            return None
        wanted = f"{target}?{query.decode()}" if query else target
        return Call(key, "GET", wanted, given), TEMPLATES[path["prefix"]].path_format

    def _built(self, consumer: Consumer, asked: Asked, kept: Kept, route: str) -> Hit:
        grant = asked.grant
        length = ("content-length", str(len(kept.body)))
        fields = fields_of((*kept.headers, length), grant, 0, Outcome.HIT, 0)
        at = next(number for number, (name, _) in enumerate(fields) if name == b"age")
        head, rest = fields[:at], headers.completed(fields, self._always)[at + 1 :]
        known = self._known.glance(grant.key)
        return Hit(
            consumer,
            grant,
            asked,
            kept,
            route,
            head,
            rest,
            b"HTTP/1.1 200 OK\r\n" + lines_of(head),
            lines_of(rest),
            self._state(),
            known.until if known is not None and known.value is grant else self._clock.monotonic(),
            use_of(consumer, grant.id, grant.generation, grant.key),
        )

    async def _send(self, scope: Scope, send: Send, hit: Hit, request_id: bytes) -> None:
        age, body = hit.kept.age_at(self._clock.monotonic()), hit.kept.body
        write: WriteWhole | None = scope.get("extensions", {}).get(EXTENSION)
        if write is not None:
            own = b"age: %d\r\n%sx-request-id: %s\r\n" % (age, hit.rest_lines, request_id)
            await write(hit.head_lines + own, body)
            return
        fields = [*hit.head, (b"age", b"%d" % age), *hit.rest, (b"x-request-id", request_id)]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    def _told(self, hit: Hit, shown: Shown, began: float) -> bytes:
        """The request's id, once it is noted what is answered to it."""
        request_id = shown.request_id or self._untold.new_id()
        provider = hit.grant.key.provider
        self._untold.given((hit,), request_id)
        self._answers.counts.add(provider, Outcome.HIT)
        PROXIED.labels(provider, "2xx").inc()
        self._untold.answered(
            hit.consumer, "GET", hit.route, request_id, began,
            texts={"provider": provider, "grant_id": str(hit.grant.id)},
            numbers={"attempts": "0", "upstream_status": "200"},
        )  # fmt: skip
        return request_id


def _words(shown: Shown, target: bytes, fields: Fields) -> Words:
    return shown.digest, target, tuple([field for field in fields if field[0] not in _ASIDE])


def _size(words: Words) -> int:
    _, target, fields = words
    return len(target) + sum(len(name) + len(value) for name, value in fields)
