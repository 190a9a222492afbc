"""The fast lane: a GET of a token that is in memory is answered ahead of middleware, routing and validation.

    a key that was right a moment ago, a grant that is known, nothing to be done behind it     answered here
    anything else                                                                              the documented route

It asks the same parts as the route, in the same order, and none of them twice: who may see what, whether a token will do and
how much may be asked are decided by the consumer, the grant and the limiter. What the route tells of a request at once,
this tells some moments later and together: metrics, uses and the audit trail, by `settle`. Not where the trail is
strict: then each answer waits for it, on the route.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Iterable
from functools import lru_cache
from itertools import count

from starlette.types import Receive, Scope, Send

from app.api import headers
from app.api.asked import PREFIXES, ROUTE, Asked, asked
from app.api.openapi import DocumentedApp
from app.api.ready import Ready, ready
from app.api.services import Services
from app.audit.disclosures import AggregatedDisclosures
from app.bounded import Bounded
from app.consumers.consumer import Consumer, digest_of
from app.consumers.consumer import Scope as Right
from app.errors import BrokerError
from app.grants.grant import absent_twin
from app.lines import Gaps, Lines
from app.telemetry import REQUEST_SECONDS, REQUESTS, is_told

_PATHS = (b"/tokens/", b"/api/v1/tokens/")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_BEARER = b"Bearer "
_NOT_PLAIN = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade"})
_MOST_HEADERS = 40
_LONGEST_HEADER = 500
_REMEMBERED = 10_000
_TOLD_AFTER_SECONDS = 0.1

Fields = Iterable[tuple[bytes, bytes]]  # names in lower case
_Target = tuple[bytes, bytes]  # the digest of the key, and the path with its query


class Lane:
    """Answers what it can. It keeps no plain key; a token in the clear only in its answer, which is built anew with
    what is read anew, so every 5 seconds."""

    def __init__(self, services: Services, disclosures: AggregatedDisclosures) -> None:
        self._disclosures = disclosures
        self._authenticator = services.authenticator
        self._refresher = services.refresher
        self._limiter = services.limiter
        self._clients = services.clients
        self._uses = services.uses
        self._clock = services.clock
        self._fields = headers.completed(
            [(b"content-type", b"application/json")], headers.always(services.base_url)
        )
        head = [b"HTTP/1.1 200 OK\r\n", *(b"%s: %s\r\n" % field for field in self._fields)]
        self._head = b"".join(head)
        self._ready: Bounded[_Target, Ready] = Bounded(_REMEMBERED)
        self._seconds = {
            f"{prefix}{ROUTE}": REQUEST_SECONDS.labels(f"{prefix}{ROUTE}") for prefix in PREFIXES
        }
        self._untold: list[Ready] = []
        self._peeks = 0
        self._series, self._numbers = secrets.token_hex(8).encode(), count(1)
        self._lines = Lines() if is_told("app.requests") else None

    def at_once(self, target: bytes, fields: Fields, more_fields: Fields) -> bytes | None:
        """The whole answer (RFC 9112) to a GET over HTTP/1.1, if it was built before; None otherwise, and nothing is done.
        `more_fields` are the server's own."""
        began = self._clock.monotonic()
        key, request_id = _shown(fields) if target.startswith(_PATHS) else (None, None)
        if key is None:
            return None
        digest = digest_of(key)
        consumer = self._authenticator.peek(digest)
        if consumer is None:
            return None
        found = self._kept((digest, target), consumer, began)
        if found is None or not self._limiter.admits(consumer):
            return None
        body = found.body(began)
        request_id = self._noted(found, request_id, began)
        head = [b"%s: %s\r\n" % field for field in more_fields]
        return b"%s%scontent-length: %d\r\nx-request-id: %s\r\n\r\n%s" % (
            self._head, b"".join(head), len(body), request_id, body,
        )  # fmt: skip

    async def answers(self, scope: Scope, send: Send) -> bool:
        """Whether the request is answered herewith. If not nothing is done, besides reading what the route will read."""
        path = scope.get("raw_path") or b""
        if scope["method"] != "GET" or not path.startswith(_PATHS):
            return False
        began = self._clock.monotonic()
        key, request_id = _shown(scope["headers"])
        if key is None:
            return False
        digest, query = digest_of(key), scope["query_string"]
        consumer = self._authenticator.peek(digest)
        if consumer is None:
            return False
        target = (digest, b"%s?%s" % (path, query) if query else path)
        found = self._kept(target, consumer, began)
        if found is None and (wanted := asked(path, query)) is not None:
            found = await self._made(target, wanted, consumer)
        if found is None or not self._limiter.admits(consumer):
            return False
        body = found.body(began)
        request_id = self._noted(found, request_id, began)
        fields = [*self._fields, (b"content-length", b"%d" % len(body)), (b"x-request-id", request_id)]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body})
        return True

    def settle(self) -> None:
        """Tells of all that was answered since the last time."""
        untold, self._untold = self._untold, []
        for each in untold:
            self._disclosures.were_given(each.disclosure, times=each.hits, request_id=each.first_request_id)
            self._uses.note(each.grant.id)
            self._authenticator.hit(each.consumer, each.hits)
            REQUESTS.labels("GET", each.asked.route, "200").inc(each.hits)
            each.hits = 0
        self._refresher.hit(self._peeks)
        self._peeks = 0
        if self._lines is not None:
            self._lines.write()

    def _kept(self, target: _Target, consumer: Consumer, now: float) -> Ready | None:
        """What was built before, where all that it was built from is still so."""
        found = self._ready.get(target)
        if found is None or found.grant is not self._refresher.peek(found.asked.key):
            return None
        if found.until is not None and now >= found.until:
            return None
        if found.consumer is not consumer:
            if found.consumer != consumer:
                return None
            found.consumer = consumer
        self._peeks += 1
        return found

    async def _made(self, target: _Target, wanted: Asked, consumer: Consumer) -> Ready | None:
        """Built now, from what is known or read; None where that is the route's to answer."""
        key = wanted.key
        try:
            consumer.require(Right.TOKENS_READ)
            self._clients.get(key.provider)
            if not consumer.may_see(key.provider, key.user_id):
                key = absent_twin(key)  # so that it costs what an absent one costs
            grant = await self._refresher.look_up(key)
            token = None if grant is None else self._refresher.at_hand(grant, wanted.need, scope=wanted.scope)
        except BrokerError:
            return None
        if token is None:
            return None
        made = ready(wanted, consumer, token, now=self._clock.now(), monotonic=self._clock.monotonic())
        self._ready.put(target, made)
        return made

    def _noted(self, found: Ready, given_id: bytes | None, began: float) -> bytes:
        """Counts an answer, to be told of later. Its request's id."""
        request_id = given_id or b"%s%016x" % (self._series, next(self._numbers))
        if not self._untold:
            asyncio.get_running_loop().call_later(_TOLD_AFTER_SECONDS, self.settle)
        if not found.hits:
            found.first_request_id = request_id.decode()
            self._untold.append(found)
        found.hits += 1
        seconds = self._clock.monotonic() - began
        self._seconds[found.asked.route].observe(seconds)
        if self._lines is not None:
            self._lines.add(self._line(found, request_id.decode(), seconds))
        return request_id

    def _line(self, found: Ready, request_id: str, seconds: float) -> str:
        grant = found.grant
        return _gaps(found.asked.route, found.consumer.name).filled(
            self._clock.now().isoformat()[: -len("+00:00")] + "Z",
            request_id,
            grant.key.provider,
            str(grant.id),
            str(grant.generation),
            f"{seconds * 1000:.1f}",
        )


class BrokerApp(DocumentedApp):
    """The application, with a lane of its own for what is asked all the time once it was given one."""

    lane: Lane | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.lane is not None and scope["type"] == "http" and await self.lane.answers(scope, send):
            return
        await super().__call__(scope, receive, send)


def _shown(fields: Fields) -> tuple[bytes | None, bytes | None]:
    """The key and the id of a request; no key where anything about it is not quite plain."""
    key = request_id = None
    for number, (name, value) in enumerate(fields):
        if name in _NOT_PLAIN or len(value) > _LONGEST_HEADER or number > _MOST_HEADERS:
            return None, None
        if name == b"authorization" or name == b"x-api-key":
            if key is not None:
                return None, None
            if name == b"authorization" and not value.startswith(_BEARER):
                return None, None
            key = value.removeprefix(_BEARER) if name == b"authorization" else value
        elif name == b"x-request-id":
            request_id = value if _REQUEST_ID.fullmatch(value) else None
    return key, request_id


@lru_cache(1000)
def _gaps(route: str, consumer: str) -> Gaps:
    facts = {
        "method": "GET",
        "route": route,
        "status": 200,
        "outcome": "ok",
        "consumer": consumer,
        "event": "request",
        "level": "info",
        "logger": "app.requests",
    }
    return Gaps(
        facts,
        texts=("at", "request_id", "provider", "grant_id"),
        numbers=("generation", "milliseconds"),
    )
