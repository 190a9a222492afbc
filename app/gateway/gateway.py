"""Providers' APIs called for services that would rather not hold a token.

async with gateway.open(call) as reply:       the head; the body as it comes, by `reply.chunks()`
answer = await gateway.whole(call, most=...)  as much of it as is wanted, in one piece
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Protocol
from urllib.parse import urlsplit

from app.apis.caller import ApiCaller, Opened
from app.apis.crowd import Crowd
from app.apis.manners import Manners, is_repeatable
from app.errors import UpstreamError
from app.gateway import headers, refusals
from app.gateway.call import Answer, Call
from app.gateway.target import base_of, url_below
from app.grants.grant import LeanGrant
from app.oauth.client import OAuthClients
from app.oauth.wire import StreamRequest, expanded_up_to, is_expandable

_LOOKED_AT = 64 * 1024  # bytes of a refusal, for what it says
_LOOK_SECONDS = 2.0
BODY_SECONDS = 5.0  # from the head on, for who wants an answer in one piece


class Readable(Protocol):
    """An answer whose head is there, whoever gives it."""

    status: int
    headers: tuple[tuple[str, str], ...]
    attempts: int

    def header(self, name: str) -> str: ...

    async def piece(self) -> bytes: ...


class Reply:
    """A provider's answer whose head is there.

    `headers`: lower-case names, without those of a connection and without cookies. `attempts`: requests that were sent for
    it. `grant`: whose token was used last.
    """

    def __init__(self, opened: Opened, url: str) -> None:
        """`url`: what was asked."""
        self._opened = opened
        self._ahead: deque[bytes] = deque()
        self.status = opened.exchange.status
        self.headers = headers.received(opened.exchange.headers, url)
        self.attempts = opened.attempts
        self.grant: LeanGrant = opened.grant

    def header(self, name: str) -> str:
        """The values of that name, which is in lower case, separated by commas; "" where there is none."""
        return ", ".join(value for each, value in self.headers if each == name)

    async def piece(self) -> bytes:
        """What has come of the body, in its content coding; b"" when that was all. Raises UpstreamError where it breaks off."""
        if self._ahead:
            return self._ahead.popleft()
        return await self._opened.exchange.piece()

    @property
    def is_over(self) -> bool:
        """Whether all of the body has been answered by `piece`."""
        return not self._ahead and self._opened.exchange.is_over

    async def chunks(self) -> AsyncIterator[bytes]:
        """The same, one after the other."""
        while piece := await self.piece():
            yield piece

    async def ahead(self, most: int) -> bytes:
        """Some of the body, with which it begins all the same: `most` bytes, or all there are."""
        seen = sum(map(len, self._ahead))
        while seen < most and (piece := await self._opened.exchange.piece()):
            self._ahead.append(piece)
            seen += len(piece)
        return self.begun(most)

    def begun(self, most: int) -> bytes:
        """As much of that as is there, whoever was interrupted in reading it."""
        return b"".join(self._ahead)[:most]


class Gateway:
    """Calls, with the grant's token, what lies below the API's base."""

    def __init__(self, caller: ApiCaller, clients: OAuthClients, crowd: Crowd | None = None) -> None:
        self._caller = caller
        self._clients = clients
        self._crowd = crowd or Crowd()

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[Reply]:
        """The answer, whatever its status, but for a 403 that says that the token lacks a scope: that is InsufficientScope.

        Leaving ends it: what was not read of it is never asked for. Raises what `Refresher.fresh` raises,
        ProviderUnavailable and ProviderError where nothing came back that could be passed on, Overloaded where too many of
        the grant's calls, or of those to that API, are under way, ValidationFailed for a target
        that would leave the API's base, and what made the body's source break off.
        """
        client = self._clients.get(call.key.provider)
        base = base_of(client)
        request = StreamRequest(
            call.method,
            url_below(base, call.target),
            base,
            headers.sent(call.headers, client.provider.api.headers),
            call.body,
        )
        until = _now() + call.within
        async with self._crowd.place(call.key, urlsplit(base).netloc, within=call.within):
            manners = self._manners(call, request, within=until - _now())
            opened = await self._caller.open(call.key, request, manners, grant_id=call.grant_id)
            try:
                reply = Reply(opened, request.url)
                if reply.status == 403:
                    await _require_scope(reply, client.title, until=until)
                yield reply
            finally:
                opened.exchange.close()

    async def whole(self, call: Call, *, most: int, seconds: float = BODY_SECONDS) -> Answer:
        """The answer with at most `most` bytes of its body, without a content coding that we know. What has come once the head
        is there stands: a body that breaks off, or takes longer than `seconds`, is cut. Raises what `open` raises."""
        async with self.open(call) as reply:
            return await in_one_piece(reply, most=most, seconds=seconds)

    def _manners(self, call: Call, request: StreamRequest, *, within: float) -> Manners:
        attempts = self._caller.attempts if call.attempts is None else call.attempts
        return Manners(
            max(1, attempts),
            repeatable=is_repeatable(request.method, request.headers),
            waits_out=True,
            renews=attempts > 0,
            within=within,
        )


async def in_one_piece(reply: Readable, *, most: int, seconds: float) -> Answer:
    """What `Gateway.whole` makes of an answer."""
    body, coding, has_ended = bytearray(), reply.header("content-encoding"), False
    with suppress(UpstreamError, TimeoutError):
        async with asyncio.timeout(seconds):
            while len(body) <= most and not has_ended:
                piece = await reply.piece()
                body += piece
                has_ended = not piece
    text, is_all = expanded_up_to(bytes(body), coding, limit=most)
    changed = {"content-length", "content-encoding"} if is_expandable(coding) else {"content-length"}
    kept = tuple(pair for pair in reply.headers if pair[0] not in changed)
    return Answer(reply.status, kept, text, reply.attempts, is_cut=not (has_ended and is_all))


async def _require_scope(reply: Reply, title: str, *, until: float) -> None:
    """Raises InsufficientScope, where the 403 says so in what has come of it in time; its status stands, whatever becomes of
    the rest."""
    challenge, body = reply.header("www-authenticate"), b""
    if "json" in reply.header("content-type"):
        with suppress(TimeoutError, UpstreamError):
            async with asyncio.timeout_at(min(until, _now() + _LOOK_SECONDS)):
                await reply.ahead(_LOOKED_AT)
        body, _ = expanded_up_to(reply.begun(_LOOKED_AT), reply.header("content-encoding"), limit=_LOOKED_AT)
    if refusals.lacks_scope(challenge, body):
        raise refusals.insufficient_scope(reply.grant, title, challenge)


def _now() -> float:
    """By the event loop, which measures what others take of a caller's time."""
    return asyncio.get_running_loop().time()
