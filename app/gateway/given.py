"""`Given`: an answer as the gateway gives it, from the provider or from memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

from app.gateway.counts import Outcome
from app.gateway.flight import Whole
from app.gateway.gateway import Reply
from app.grants.grant import LeanGrant

Headers = tuple[tuple[str, str], ...]


_WITHOUT_LENGTH = frozenset({204, 304})  # RFC 9110 section 8.6


class Given:
    """`headers`: lower-case names, without those of a connection and without cookies. `attempts`: requests that were sent for
    it. `age`: of an answer from memory, in seconds."""

    def __init__(
        self,
        status: int,
        headers: Headers,
        body: bytes | Reply,
        attempts: int,
        grant: LeanGrant,
        outcome: Outcome,
    ) -> None:
        self.status = status
        self.headers = headers
        self.attempts = attempts
        self.grant = grant
        self.outcome = outcome
        self.age: int | None = None
        self._body = body

    @classmethod
    def of_reply(cls, reply: Reply, outcome: Outcome) -> Given:
        fields = reply.headers
        if (
            reply.status in _WITHOUT_LENGTH
        ):  # a server that is told one waits for as much, though nothing may follow
            fields = tuple(each for each in fields if each[0] != "content-length")
        return cls(reply.status, fields, reply, reply.attempts, reply.grant, outcome)

    @classmethod
    def of_whole(cls, whole: Whole, outcome: Outcome) -> Given:
        fields = whole.headers
        if whole.status not in _WITHOUT_LENGTH:
            fields = (*fields, ("content-length", str(len(whole.body))))
        given = cls(whole.status, fields, whole.body, whole.attempts, whole.grant, outcome)
        given.age = whole.age
        return given

    def without_body(self) -> Given:
        """As it is given to a HEAD (RFC 9110 section 9.3.2)."""
        self._body = b""
        return self

    def header(self, name: str) -> str:
        """The values of that name, which is in lower case, separated by commas; "" where there is none."""
        return ", ".join(value for each, value in self.headers if each == name)

    @property
    def is_over(self) -> bool:
        """Whether all of the body has been answered by `piece`."""
        return not self._body if isinstance(self._body, bytes) else self._body.is_over

    async def piece(self) -> bytes:
        """What has come of the body, in its content coding; b"" when that was all. Raises UpstreamError where it breaks off."""
        if not isinstance(self._body, bytes):
            return await self._body.piece()
        piece, self._body = self._body, b""
        return piece

    async def chunks(self) -> AsyncIterator[bytes]:
        """The same, one after the other."""
        while piece := await self.piece():
            yield piece
