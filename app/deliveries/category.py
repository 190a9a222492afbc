"""What became of an attempt to deliver, and what that leads to. Pure.

answer or error -> Verdict -> next_step -> delivered
                                           retrying, `delay` seconds later
                                           split: two halves go on in its place
                                           dead
                                           put_back: nothing was tried, so nothing is counted; for a day at most
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from app.errors import (
    BrokerError,
    Category,
    GrantNotFound,
    InsufficientScope,
    InvalidRequest,
    Overloaded,
    ProviderError,
    ProviderRejectedClient,
    RateLimited,
    ReconnectRequired,
    RefreshTimeout,
    Sent,
    UnknownProvider,
    UpstreamError,
    ValidationFailed,
)
from app.oauth.wire import HttpAnswer

MOST_UNKNOWNS = 2  # outcomes that are not known, after each of which it is tried once more
BREAKER_OPEN = "breaker_open"
_IDEMPOTENT = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}  # RFC 9110 section 9.2.2
_TRANSIENT = {408, 425}
_NEVER = {501, 505}  # what is not implemented, or not spoken, will not be in a minute
_INVALID = {400, 409, 411, 412, 413, 414, 415, 422}
_RETRIED = {
    Category.TRANSIENT,
    Category.NETWORK,
    Category.RATE_LIMIT,
    Category.TOKEN_EXPIRED,
    Category.UNKNOWN,
}
_NOBODY_THERE = (GrantNotFound, UnknownProvider, InsufficientScope, InvalidRequest, ValidationFailed)
_NOT_NOW = (RateLimited, Overloaded, RefreshTimeout)
_NOTHING_SENT = {Category.TRANSIENT, Category.NETWORK, Category.RATE_LIMIT}
_PUT_BACK_SECONDS = 5.0
_PUT_BACK_LATER_SECONDS = 300.0  # at most, the longer it lasts
MOST_PUT_BACK_SECONDS = 86400.0  # then it counts as an attempt
_MOST_SECONDS = 86400.0


class Step(StrEnum):
    DELIVERED = "delivered"
    RETRYING = "retrying"
    SPLIT = "split"
    DEAD = "dead"
    PUT_BACK = "put_back"
    CANCELLED = "cancelled"  # with its batch, while it was being sent


@dataclass(frozen=True)
class Verdict:
    """Of one attempt. `category` None: it arrived. `status`: the provider's, None where nothing came back.
    `was_tried` False: the provider was not asked at all."""

    category: Category | None
    code: str | None = None
    status: int | None = None
    retry_after: float | None = None
    was_tried: bool = True


@dataclass(frozen=True)
class Pause:
    """Seconds before the next attempt: drawn evenly from `least` to `base * 2 ** (attempts - 1)`, at most `cap`."""

    least: float
    base: float
    cap: float

    def drawn(self, attempts: int) -> float:
        ceiling = min(self.cap, self.base * 2.0 ** min(attempts - 1, 30))
        return random.uniform(self.least, max(self.least, ceiling))


_BY_ITSELF = Pause(0, 1, 900)
_PAUSES = {
    Category.TRANSIENT: _BY_ITSELF,
    Category.NETWORK: _BY_ITSELF,
    Category.RATE_LIMIT: Pause(30, 37.5, 37.5),  # spread, since all that were refused come again then
    Category.TOKEN_EXPIRED: Pause(60, 60, 3600),
    Category.UNKNOWN: Pause(10, 15, 15),
}


def of_answer(status: int, headers: Sequence[tuple[str, str]], *, unknowns: int = 0) -> Verdict:
    """`headers` with lower-case names. `unknowns`: earlier attempts that may have arrived."""
    category = _category_of(status)
    if status == 409 and unknowns:
        category = Category.UNKNOWN  # perhaps the earlier one, which is still at work
    retry_after = HttpAnswer(status, dict(headers), b"").retry_after()
    code = None if category is None else f"http_{status}"
    return Verdict(category, code, status, retry_after)


def _category_of(status: int) -> Category | None:
    if 200 <= status < 300:
        return None
    if status in _TRANSIENT or (status >= 500 and status not in _NEVER):
        return Category.TRANSIENT
    if status == 429:
        return Category.RATE_LIMIT
    if status == 401:  # with a newer token, too
        return Category.TOKEN_EXPIRED
    return Category.VALIDATION if status in _INVALID else Category.PERMANENT


def of_token_error(error: BrokerError) -> Verdict:
    """There is no token to send it with, so that it was not sent."""
    if isinstance(error, _NOBODY_THERE):
        return Verdict(Category.PERMANENT, error.code)
    # Until somebody has seen to it: the grant is dead, or the token endpoint has an answer that is of no use.
    if isinstance(error, (ReconnectRequired, ProviderRejectedClient)):
        return Verdict(Category.TOKEN_EXPIRED, error.code)
    if isinstance(error, ProviderError):
        code = error.provider_code or error.code
        return Verdict(Category.TOKEN_EXPIRED, code, retry_after=error.retry_after)
    return _not_tried(error)


def of_error(error: BrokerError, method: str) -> Verdict:
    """What came of a call where no answer did."""
    if isinstance(error, InsufficientScope):
        return Verdict(Category.PERMANENT, error.code, status=403)
    if isinstance(error, (*_NOBODY_THERE, ReconnectRequired, ProviderRejectedClient)):
        return of_token_error(error)
    if isinstance(error, _NOT_NOW):
        return _not_tried(error)
    if not isinstance(error, UpstreamError):
        return lost(method, code=error.code)
    if error.sent is Sent.ANSWERED:  # by 401, and there is no other token at the moment
        code = error.provider_code or error.code
        return Verdict(Category.TOKEN_EXPIRED, code, 401, retry_after=error.retry_after)
    if error.sent is Sent.UNKNOWN:
        return lost(method, code=error.provider_code or error.code)
    if error.provider_code == BREAKER_OPEN or error.category is Category.RATE_LIMIT:
        return _not_tried(error)
    category = Category.PERMANENT if error.category is Category.PERMANENT else Category.NETWORK
    return Verdict(category, error.provider_code or error.code, retry_after=error.retry_after)


def lost(method: str, *, code: str) -> Verdict:
    """It may have arrived, and may not; only where doing it twice does what doing it once does, that is no matter."""
    return Verdict(Category.NETWORK if method in _IDEMPOTENT else Category.UNKNOWN, code)


def _not_tried(error: BrokerError) -> Verdict:
    code = getattr(error, "provider_code", None) or error.code
    category = error.category if error.category in _NOTHING_SENT else Category.TRANSIENT
    return Verdict(category, code, retry_after=error.retry_after, was_tried=False)


def counted(verdict: Verdict) -> Verdict:
    """As an attempt, although it was none: it has lasted too long."""
    return replace(verdict, was_tried=True)


def next_step(
    verdict: Verdict,
    *,
    attempts: int,
    max_attempts: int,
    unknowns: int,
    retry_on: Collection[int],
    records: int,
) -> Step:
    """`attempts` and `unknowns` count this one too."""
    if not verdict.was_tried:
        return Step.PUT_BACK
    if verdict.category is None:
        return Step.DELIVERED
    may_again = verdict.category in _RETRIED or verdict.status in retry_on
    if verdict.category is Category.UNKNOWN and unknowns > MOST_UNKNOWNS:
        may_again = False
    if may_again and attempts < max_attempts:
        return Step.RETRYING
    if verdict.category is Category.VALIDATION and records > 1:
        return Step.SPLIT
    return Step.DEAD


def delay(verdict: Verdict, *, attempts: int, put_back_for: float = 0.0) -> float:
    """Seconds until the next attempt, after so many: never less than the provider asked for, a day at most. `put_back_for`:
    seconds since it was claimed first without being tried."""
    asked = min(verdict.retry_after or 0.0, _MOST_SECONDS)
    if not verdict.was_tried:
        says_when = verdict.code == BREAKER_OPEN or verdict.category is Category.RATE_LIMIT
        lasts = 0.0 if says_when else min(put_back_for / 2, _PUT_BACK_LATER_SECONDS)
        return random.uniform(1.0, 1.25) * max(asked or _PUT_BACK_SECONDS, lasts)
    if verdict.category is Category.RATE_LIMIT and asked:
        return asked * random.uniform(1.0, 1.25)
    assert verdict.category is not None
    return max(asked, _PAUSES.get(verdict.category, _BY_ITSELF).drawn(attempts))
