"""The routes, and the order in which things happen to a request:

    counted -> a fault due? -> processed -> state saved -> `delay` -> answered, or maimed by the fault

Processing is one synchronous step, so that no two requests ever interleave within it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial
from json import JSONDecodeError
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from app.sandbox import protocol
from app.sandbox.authorize import Desk
from app.sandbox.call import Call
from app.sandbox.control import Control
from app.sandbox.faults import Faults
from app.sandbox.notes import Notes
from app.sandbox.state import State
from app.sandbox.tokens import Refused
from app.sandbox.wire import linger

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}  # RFC 6749 section 5.1
FORM = "application/x-www-form-urlencoded"

Route = Callable[[web.Request], Awaitable[web.StreamResponse]]
Answer = Callable[[Call, float], web.Response]
Spoken = Callable[[State, Call, float], dict[str, Any]]


class Routes:
    """Every path the sandbox answers. `save` is called whenever the state may have changed."""

    def __init__(self, desk: Desk, faults: Faults, control: Control, save: Callable[[], None]) -> None:
        self._desk = desk
        self._state = desk.state
        self._faults = faults
        self._control = control
        self._save = save
        self._notes = Notes()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/authorize", self._serving("authorize", self._desk.ask), allow_head=False)
        app.router.add_post("/authorize", self._serving("authorize", self._desk.decide))
        app.router.add_post("/token", self._speaking("token", protocol.token))
        app.router.add_post("/revoke", self._speaking("revoke", protocol.revoke))
        app.router.add_post("/introspect", self._speaking("introspect", protocol.introspect))
        app.router.add_get("/userinfo", self._speaking("userinfo", protocol.userinfo))
        app.router.add_get("/api/ping", self._speaking("api", protocol.ping))
        app.router.add_get(
            "/api/notes", self._noting(lambda request, user, _: self._notes.listed(request, user))
        )
        app.router.add_post("/api/notes", self._noting(self._notes.added))
        app.router.add_delete(
            "/api/notes/{id}", self._noting(lambda request, user, _: self._notes.removed(request, user))
        )
        app.router.add_get("/.well-known/oauth-authorization-server", self._metadata)
        app.router.add_get("/.well-known/openid-configuration", self._metadata)
        app.router.add_route("*", "/elsewhere", self._elsewhere)
        app.router.add_get("/_control", self._report)
        app.router.add_post("/_control", self._controlling(self._control.change))
        app.router.add_post("/_control/grants", self._controlling(self._grant))
        app.router.add_post("/_control/revoke", self._controlling(self._control.revoke))
        return app

    def _speaking(self, endpoint: str, spoken: Spoken) -> Route:
        return self._serving(endpoint, lambda call, now: told(lambda: spoken(self._state, call, now)))

    def _noting(self, act: Callable[[web.Request, str, str], web.Response]) -> Route:
        """A route of the resource server's: `act` is given the user whose token it is, and the body."""

        async def serve(request: web.Request) -> web.StreamResponse:
            try:
                body = (await request.read()).decode(errors="replace")
            except ConnectionResetError:  # the client left amid its request
                return web.Response()

            def answer(call: Call, now: float) -> web.Response:
                try:
                    access = protocol.authorized(self._state, call, now)
                except Refused as refused:
                    return refusal(refused)
                return act(request, protocol.subject(access), body)

            return await self._serving("api", answer)(request)

        return serve

    def _serving(self, endpoint: str, answer: Answer) -> Route:
        """A route that counts, may fail on demand, and otherwise answers."""

        async def serve(request: web.Request) -> web.StreamResponse:
            try:
                call = await read_call(request)
            except ConnectionResetError:  # the client left amid its request
                return web.Response()
            self._count(endpoint, call)
            family = self._state.family_of(call.presented())
            process = partial(self._process, endpoint, answer, request, call)
            with self._state.flights.one(family) if endpoint == "token" else nullcontext():
                fault = self._faults.take(endpoint, family.user if family else None)
                return await (fault.happen(request, process) if fault else process())

        return serve

    def _count(self, endpoint: str, call: Call) -> None:
        self._state.counters.hits[endpoint] += 1
        if endpoint == "token":
            self._state.counters.grant_types[call.first("grant_type") or "none"] += 1

    async def _process(self, endpoint: str, answer: Answer, request: web.Request, call: Call) -> web.Response:
        response = answer(call, time.time())
        self._save()
        if endpoint == "token":
            await linger(request, self._state.settings.delay)
        return response

    async def _metadata(self, _request: web.Request) -> web.Response:
        self._state.counters.hits["metadata"] += 1
        return web.json_response(protocol.metadata(self._desk.issuer))

    async def _elsewhere(self, _request: web.Request) -> web.Response:
        self._state.counters.hits["elsewhere"] += 1
        return web.json_response({})

    async def _report(self, _request: web.Request) -> web.Response:
        return web.json_response(self._control.report())

    def _grant(self, body: object) -> dict[str, Any]:
        return self._control.grant(body, time.time())

    def _controlling(self, change: Callable[[object], dict[str, Any]]) -> Route:
        async def control(request: web.Request) -> web.Response:
            try:
                body = await request.json()
            except (JSONDecodeError, UnicodeDecodeError):
                return refusal(Refused("invalid_request", "body: not JSON"))
            response = told(lambda: change(body))
            self._save()
            return response

        return control


async def read_call(request: web.Request) -> Call:
    """The protocol's part of a request; parameters of a POST are in its body only (RFC 6749 section 3.2)."""
    authorization = request.headers.get("Authorization")
    if request.method == "GET":
        return Call(authorization, tuple(parse_qsl(request.rel_url.raw_query_string)))
    body = (await request.read()).decode(errors="replace")
    return Call(authorization, tuple(parse_qsl(body)) if request.content_type == FORM else None)


def told(speak: Callable[[], dict[str, Any]]) -> web.Response:
    """The JSON answer, or the refusal."""
    try:
        return web.json_response(speak(), headers=NO_STORE)
    except Refused as refused:
        return refusal(refused)


def refusal(refused: Refused) -> web.Response:
    """RFC 6749 section 5.2."""
    members = {"error": refused.error, "error_description": refused.description}
    return web.json_response(members, status=refused.status, headers={**NO_STORE, **refused.headers})
