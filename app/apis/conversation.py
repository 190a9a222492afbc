"""One call of an API under way: what is asked, how long there is for it, and what has been done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Generic, TypeVar
from uuid import UUID

from app.apis.manners import Manners
from app.clock import Clock
from app.errors import RefreshTimeout, UpstreamError
from app.grants.grant import LeanGrant
from app.grants.refresh import DEFAULT_WAIT
from app.oauth.client import OAuthClient
from app.oauth.exchange import Exchange, Upload
from app.oauth.wire import HttpAnswer, HttpRequest, StreamRequest
from app.resilience import Backoff

R = TypeVar("R", bound=HttpRequest | StreamRequest)
A = TypeVar("A", bound=HttpAnswer | Exchange)


class Conversation(Generic[R, A]):
    """One call under way, and what has been done for it."""

    def __init__(
        self,
        request: R,
        manners: Manners,
        ask: Callable[[OAuthClient, R, float], Awaitable[A]],
        drop: Callable[[A], None],
        clock: Clock,
        *,
        grant_id: UUID | None = None,
    ) -> None:
        """`grant_id`: of the only grant whose token may go with it; None: whichever the key leads to."""
        self.grant_id = grant_id
        self.request = request
        self.manners = manners
        self.ask = ask
        self.drop = drop
        self.grant: LeanGrant | None = None
        self.failed: A | None = None
        self.attempts = self.tries = 0
        self._clock = clock
        self._until = None if manners.within is None else clock.monotonic() + manners.within

    @property
    def is_spent(self) -> bool:
        """Whether its body has begun to leave, and there is only one of it."""
        return isinstance(self.request.body, Upload) and self.request.body.begun

    def left(self) -> float | None:
        """Seconds until the caller's time is over. Raises RefreshTimeout where it is."""
        if self._until is None:
            return None
        left = self._until - self._clock.monotonic()
        if left > 0:
            return left
        raise RefreshTimeout("This takes longer than you wanted to wait. Try again shortly.", retry_after=1)

    @property
    def wait(self) -> timedelta:
        """For a token."""
        left = self.left()
        return DEFAULT_WAIT if left is None else timedelta(seconds=left)

    def pause(self, backoff: Backoff, heard: A | UpstreamError) -> float | None:
        """Seconds until it is tried again; None: what was heard stands."""
        if isinstance(heard, UpstreamError):
            retry_after, is_repeated = heard.retry_after, self.manners.repeats_error(heard)
        elif heard.status < 429:
            return None
        else:
            retry_after = heard.retry_after()
            is_repeated = self.manners.repeats_answer(heard.status)
        if not is_repeated:
            return None
        left = None if self._until is None else self._until - self._clock.monotonic()
        return self.manners.pause(backoff, self.tries, retry_after=retry_after, left=left)
