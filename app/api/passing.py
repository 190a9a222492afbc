"""A provider's answer passed on to a caller, and a caller's body to a provider, as they come.

A client that hangs up ends what is under way for it, and an answer that breaks off is broken for the client as well. ASGI has
a way for neither that costs nothing, so `app.fast` offers both as extensions of the scope.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from uuid import UUID

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.errors import BodyTooLarge, BrokerError, UpstreamError, ValidationFailed
from app.gateway.cached import CachedGateway
from app.gateway.call import Call
from app.gateway.counts import Outcome
from app.gateway.given import Given
from app.gateway.headers import answered
from app.grants.grant import LeanGrant
from app.metrics import PROXIED
from app.oauth.exchange import Upload
from app.telemetry import note
from app.uses import Uses

ABORT = "broker.abort"  # () -> None: ends the connection in the middle of an answer
LOST = "broker.lost"  # (callback | None) -> None: what is called when the client hangs up
READ_FIRST = 64 * 1024  # bytes: a body up to this is held, so that it can be sent again
HUNG_UP = 499  # for metrics and the log: nobody is there to see it
# A browser that is led to an answer may do nothing with it, least of all in our name.
_SANDBOX = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox"


class HungUp(Exception):
    """The client did, or took too long, which the server has told it."""


class Passing(Response):
    """The answer to a call, made while it is given."""

    def __init__(self, gateway: CachedGateway, call: Call, uses: Uses[UUID]) -> None:
        self.background = None
        self.status_code = 200
        self._gateway = gateway
        self._call = call
        self._uses = uses
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task, is_lost = asyncio.current_task(), False
        assert task is not None

        def lost() -> None:
            nonlocal is_lost
            is_lost = True
            task.cancel()

        watch: Callable[[Callable[[], None] | None], None] = scope.get("extensions", {}).get(LOST, _nobody)
        try:
            watch(lost)
            if is_lost:  # before anybody watched
                await asyncio.sleep(0)  # where the cancellation is raised: nothing is asked for nobody
            await self._pass(scope, send)
        except asyncio.CancelledError:
            if not is_lost or task.uncancel():
                raise
            await self._hung_up(send)
        except HungUp:
            await self._hung_up(send)
        finally:
            watch(None)

    async def _pass(self, scope: Scope, send: Send) -> None:
        try:
            async with self._gateway.open(self._call) as reply:
                self._uses.note(reply.grant.id)
                await self._answer(reply, send)
                self._tell(f"{reply.status // 100}xx")
        except UpstreamError as error:
            if not self._started:
                self._tell(error.code)
                raise
            self._tell("broken_off")
            note(outcome="broken_off", provider_code=error.provider_code)
            abort = scope.get("extensions", {}).get(ABORT)
            if abort is None:
                raise
            abort()
        except BrokerError as error:
            self._tell(error.code)
            raise

    async def _answer(self, reply: Given, send: Send) -> None:
        note(grant_id=str(reply.grant.id), attempts=reply.attempts, upstream_status=reply.status)
        self._started = True
        await send({"type": "http.response.start", "status": reply.status, "headers": _fields(reply)})
        while piece := await reply.piece():
            await send({"type": "http.response.body", "body": piece, "more_body": not reply.is_over})
            if reply.is_over:
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _hung_up(self, send: Send) -> None:
        """The server drops what is sent now."""
        self._tell("hung_up")
        note(outcome="hung_up")
        if not self._started:
            await send({"type": "http.response.start", "status": HUNG_UP, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    def _tell(self, outcome: str) -> None:
        PROXIED.labels(self._call.key.provider, outcome).inc()


def _nobody(_callback: Callable[[], None] | None) -> None:
    """A server that cannot tell when a client hangs up."""


def _fields(reply: Given) -> list[tuple[bytes, bytes]]:
    return fields_of(reply.headers, reply.grant, reply.attempts, reply.outcome, reply.age)


def fields_of(
    given: Iterable[tuple[str, str]], grant: LeanGrant, attempts: int, outcome: Outcome, age: int | None
) -> list[tuple[bytes, bytes]]:
    """What a caller gets with an answer, given what was `received` with it. `age`: of one from memory, in seconds."""
    fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answered(given)]
    if age is not None:
        fields.append((b"age", b"%d" % age))  # RFC 9111 section 5.1
    fields += [
        (b"cache-control", b"no-store"),
        (b"content-security-policy", _SANDBOX.encode()),
        (b"x-broker-attempts", b"%d" % attempts),
        (b"x-broker-cache", outcome.encode()),
        (b"x-broker-grant", str(grant.id).encode()),
    ]
    return fields


def read(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """A request's headers as text, which is sent on as UTF-8: byte for byte what came. Raises ValidationFailed where that
    cannot be."""
    headers = []
    for name, value in fields:
        try:
            headers.append((name.decode("latin-1"), value.decode()))
        except UnicodeDecodeError:
            place, mistake = f"header.{name.decode('latin-1')}", "must be ASCII or UTF-8"
            sentence = f"The request is not valid. {place}: {mistake}"
            raise ValidationFailed(sentence, fields={place: mistake}) from None
    return headers


async def body_of(scope: Scope, receive: Receive, *, most: int) -> bytes | Upload:
    """The request's body: whole where it is small, else as it comes.

    Raises BodyTooLarge for one that is larger than `most` bytes or says so, from the upload where that turns out on the way;
    and HungUp.
    """
    length, has_body = _announced(scope)
    if not has_body or length == 0:
        return b""
    if length is not None and length > most:
        raise too_large(most)
    if length is not None and length > READ_FIRST:
        return Upload(_arriving(receive, b"", most), length=length)
    first, is_all = bytearray(), False
    while not is_all and len(first) <= READ_FIRST:
        piece, is_all = await _piece(receive)
        first += piece
    return bytes(first) if is_all else Upload(_arriving(receive, bytes(first), most), length=None)


async def _arriving(receive: Receive, first: bytes, most: int) -> AsyncIterator[bytes]:
    seen, piece, is_all = len(first), first, False
    if piece:
        yield piece
    while not is_all:
        piece, is_all = await _piece(receive)
        seen += len(piece)
        if seen > most:
            raise too_large(most)
        if piece:
            yield piece


async def _piece(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise HungUp
    return message.get("body", b""), not message.get("more_body", False)


def _announced(scope: Scope) -> tuple[int | None, bool]:
    """Its length, if that is known, and whether there is a body at all (RFC 9112 section 6.3)."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value), True
        if name == b"transfer-encoding":
            return None, True
    return None, False


def too_large(most: int) -> BodyTooLarge:
    return BodyTooLarge(f"{most / 1024 / 1024:g} MiB")
