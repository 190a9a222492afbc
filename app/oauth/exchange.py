"""One request to a provider's API and its answer, both as they come: neither is ever in memory as a whole.

    source -> Upload -> the provider -> Exchange.piece -> whoever asked

What is not taken at one end is not read at the other.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator
from functools import cached_property

import aiohttp

from app.errors import Category, ProviderError, ProviderUnavailable, Sent
from app.oauth.client import OAuthClient
from app.oauth.wire import retry_after

IDLE_SECONDS = 30.0


class Upload:
    """A request's body that is sent as it comes, and so once only.

    `length`: bytes, where they are known. `waits`: for its source, so that a time that is over meanwhile is no trouble of
    the provider's. `failure` is why its source broke off, which is none either.
    """

    def __init__(self, source: AsyncIterable[bytes], *, length: int | None) -> None:
        self._source = source
        self.length = length
        self.begun = False
        self.waits = False
        self.failure: Exception | None = None
        self._limit: asyncio.Timeout | None = None
        self._seconds = 0.0

    def __bool__(self) -> bool:
        return True

    def hold_to(self, limit: asyncio.Timeout, seconds: float) -> None:
        """From now on `limit` ends whoever waits for the answer: when nothing of the body moves for `IDLE_SECONDS`, or
        `seconds` after the last of it."""
        self._limit, self._seconds = limit, seconds

    def let_go(self) -> None:
        """There is an answer."""
        self._limit = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.begun:  # the library would send it once more, of which only an end is left
            raise ConnectionError("the body was sent already")
        self.begun = self.waits = True
        self._moved(
            IDLE_SECONDS
        )  # the time of whoever sends it, rather than the provider's, before the first of it too
        try:
            async for chunk in self._source:
                self.waits = False
                self._moved(IDLE_SECONDS)
                yield chunk
                self.waits = True
                self._moved(IDLE_SECONDS)
            self.waits = False
        except Exception as error:
            self.failure = error
            raise
        self._moved(self._seconds)

    def _moved(self, seconds: float) -> None:
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time() + seconds)


class Exchange:
    """An answer whose head is there. To be closed by whoever has it; that may be repeated."""

    def __init__(self, client: OAuthClient, response: aiohttp.ClientResponse, *, max_bytes: int) -> None:
        self._client = client
        self._response = response
        self._max_bytes = max_bytes
        self._seen = 0

    @property
    def status(self) -> int:
        return self._response.status

    @cached_property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """As they came, with lower-case names. Bytes that are no ASCII are Latin-1's, so that they can be given back."""
        return tuple(
            (name.decode("latin-1").lower(), value.decode("latin-1"))
            for name, value in self._response.raw_headers
        )

    def retry_after(self) -> int | None:
        """As `HttpAnswer` has it."""
        return retry_after(dict(self.headers))

    @property
    def is_over(self) -> bool:
        """Whether no piece is left."""
        return self._response.content.at_eof()

    async def piece(self) -> bytes:
        """What has come of the body, in its content coding, some 128 KiB at most; b"" when that was all.

        Raises ProviderUnavailable where it breaks off, or nothing comes for `IDLE_SECONDS`, and ProviderError where it is
        larger than it may be.
        """
        try:
            piece = await self._response.content.readany()
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            raise ProviderUnavailable(
                f"{self._client.title} broke off in the middle of its answer. Your connection is kept; try again shortly.",
                provider=self._client.name,
                sent=Sent.UNKNOWN,
                category=Category.NETWORK,
                provider_code=type(error).__name__,
            ) from error
        self._seen += len(piece)
        if self._seen > self._max_bytes:
            raise answer_too_large(self._client)
        return piece

    def close(self) -> None:
        """An answer that was not read to its end costs the connection it came by."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


def answer_too_large(client: OAuthClient) -> ProviderError:
    """For an answer that nobody wants to hold, or to pass on."""
    return ProviderError(
        f"{client.title} gave an answer that is too large to be one. Your connection is kept.",
        provider=client.name,
        sent=Sent.UNKNOWN,
        provider_code="answer_too_large",
    )
