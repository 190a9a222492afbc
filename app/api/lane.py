"""The fast lane: what can be answered from memory is answered ahead of middleware, routing and validation.

    a key that was right a moment ago, grants that are known, nothing to be done behind them     answered here
    anything else                                                                                the documented route

A GET is answered by the server's protocol itself (`at_once`) where its very words were answered before, and unparsed
(`again`) where all of its bytes were; else by the application (`answers`), which also reads a grant that is not known. Many at once: `lane_batch`. What the gateway keeps:
`lane_proxy`. Rights, limits and what a
token has to be good for are decided by the same parts as on the route. What is told of a request is told some moments
later (`Untold`). Where the audit trail is strict there is no lane: each answer waits for its record.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from app.api.asked import asked
from app.api.lane_batch import BatchLane
from app.api.lane_proxy import PATHS as PROXIED
from app.api.lane_proxy import ProxyLane
from app.api.load import Load
from app.api.openapi import DocumentedApp
from app.api.plain import Fields, Shown, shown_by
from app.api.ready import Ready, Shelf, Wanted
from app.api.services import Services
from app.api.untold import Untold
from app.api.whole import Whole, lines_of
from app.audit.disclosures import AggregatedDisclosures
from app.bounded import Bounded, Recurring
from app.consumers.consumer import Consumer
from app.consumers.consumer import Scope as Right

_PATHS = (b"/tokens/", b"/api/v1/tokens/")
_REMEMBERED = 10_000
_SWEPT_EVERY_SECONDS = 3.0


class Said(NamedTuple):
    """What a request is found to ask for, as often as it comes."""

    shown: Shown
    route: str
    wanted: Wanted


class Lane:
    """Answers what it can, and leaves all else untouched. It keeps no plain key."""

    def __init__(self, services: Services, disclosures: AggregatedDisclosures) -> None:
        self._authenticator = services.authenticator
        self._limiter = services.limiter
        self._clock = services.clock
        self._shelf = Shelf(services)
        self._untold = Untold(services, disclosures)
        self._words: Bounded[tuple[bytes, bytes], tuple[str, Wanted]] = Bounded(_REMEMBERED)
        # By the digest of a whole request. Many have something in them that no other one has.
        self._said: Recurring[bytes, Said] = Recurring(_REMEMBERED)
        self._whole = Whole(services.base_url)
        self._proxied = ProxyLane(services, self._untold)
        self._sweeping: asyncio.TimerHandle | None = None
        self._batch = BatchLane(
            self._shelf, self._untold, self._authenticator, self._limiter, self._clock, self._whole
        )

    def at_once(
        self, target: bytes, fields: Fields, servers: Fields, digest: bytes | None = None
    ) -> bytes | None:
        """The whole answer (RFC 9112) to a GET over HTTP/1.1, where its words were answered before; else None. `servers`
        are the fields that the server adds, `digest` is that of all bytes that the request consists of."""
        if not target.startswith(_PATHS):
            return self._proxied.at_once(target, fields, servers)
        began, shown = self._clock.monotonic(), shown_by(fields)
        if shown is None or shown.length is not None:
            return None
        consumer, words = self._authenticator.peek(shown.digest), self._words.get((shown.digest, target))
        if consumer is None or words is None:
            return None
        said = Said(shown, *words)
        answer = self._answer(said, consumer, servers, began)
        if answer is not None and digest is not None:
            self._said.put(digest, said)
        return answer

    def again(self, digest: bytes, servers: Fields) -> bytes | None:
        """The same for a request by the digest of its bytes, where they were answered twice by `at_once`; else None."""
        said = self._said.get(digest)
        if said is None:
            return None
        began, consumer = self._clock.monotonic(), self._authenticator.peek(said.shown.digest)
        return None if consumer is None else self._answer(said, consumer, servers, began)

    def _answer(self, said: Said, consumer: Consumer, servers: Fields, began: float) -> bytes | None:
        shown, route, wanted = said
        found = self._kept(wanted, consumer)
        if found is None or not self._limiter.admits(consumer):
            return None
        body, request_id = found.body(began), self._told(found, route, shown, began)
        return b"%s%s\r\n%s" % (self._whole.head(body, request_id), lines_of(servers), body)

    async def answers(self, scope: Scope, receive: Receive, send: Send) -> Receive | None:
        """None where the request is answered herewith. Else nothing was done, besides reading what the route will read
        anyhow, and the route goes on with what is answered here to receive from."""
        path, query = scope.get("raw_path") or b"", scope["query_string"]
        if path.startswith(PROXIED):
            return None if await self._proxied.answers(scope, send) else receive
        shown = shown_by(scope["headers"]) if path.startswith(_PATHS) else None
        if shown is None:
            return receive
        if scope["method"] == "POST":
            return await self._batch.answers(scope, receive, send, shown)
        began = self._clock.monotonic()
        consumer = await self._authenticator.at_hand(shown.digest)
        if consumer is None:
            return receive
        request = asked(path, query) if scope["method"] == "GET" and shown.length is None else None
        if request is None:
            return receive
        wanted = (shown.digest, *request[1:])
        found = self._kept(wanted, consumer)
        found = found or await self._shelf.make(wanted, consumer)
        if found is None or not self._limiter.admits(consumer):
            return receive
        self._words.put((shown.digest, b"%s?%s" % (path, query) if query else path), (request.route, wanted))
        # As it is now: reading may have taken its time.
        body = found.body(self._clock.monotonic())
        request_id = self._told(found, request.route, shown, began)
        await self._whole.send(scope, send, body, request_id)
        return None

    def is_admins(self, scope: Scope) -> bool:
        """Whether an administrator asks, with a key that was right a moment ago."""
        shown = shown_by(scope["headers"])
        consumer = None if shown is None else self._authenticator.peek(shown.digest)
        return consumer is not None and consumer.has(Right.ADMIN)

    def start(self) -> None:
        """Begins to sweep, on the event loop that it is asked on."""
        self._sweeping = asyncio.get_running_loop().call_later(_SWEPT_EVERY_SECONDS, self._sweep)

    def stop(self) -> None:
        """Tells the last of it."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        self.settle()

    def settle(self) -> None:
        """Tells of all that was answered by now."""
        self._untold.settle()

    def _sweep(self) -> None:
        self._shelf.sweep()
        self._proxied.sweep()
        self.start()

    def _kept(self, wanted: Wanted, consumer: Consumer) -> Ready | None:
        found = self._shelf.kept((wanted,), consumer)
        return found[0] if found else None

    def _told(self, found: Ready, route: str, shown: Shown, began: float) -> bytes:
        """The request's id, once it is noted what is answered to it."""
        request_id = shown.request_id or self._untold.new_id()
        self._untold.given((found,), request_id)
        grant = found.grant
        self._untold.answered(
            found.consumer, "GET", route, request_id, began,
            texts={"provider": grant.key.provider, "grant_id": str(grant.id)},
            numbers={"generation": str(grant.generation)},
        )  # fmt: skip
        return request_id


def settle(app: FastAPI) -> None:
    """Has the application's lane tell of all that it answered by now, if there is one."""
    if isinstance(app, BrokerApp) and app.lane is not None:
        app.lane.settle()


class BrokerApp(DocumentedApp):
    """The application, with a lane of its own for what is asked all the time, and a limit to what else it takes on, once it
    was given them."""

    lane: Lane | None = None
    load: Load | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        rest: Receive | None = receive
        if self.lane is not None and scope["type"] == "http":
            rest = await self.lane.answers(scope, receive, send)
        if rest is None:
            return
        if self.load is not None and self._is_refused(self.load, scope):
            await self.load.refuse(scope, send)
            return
        await super().__call__(scope, rest, send)

    def _is_refused(self, load: Load, scope: Scope) -> bool:
        if scope["type"] != "http" or not load.refuses(scope):
            return False
        # An administrator may be about to end what causes it.
        return self.lane is None or not self.lane.is_admins(scope)
