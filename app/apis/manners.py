"""What may be done for one call of an API: how often, for how long, and what may be repeated. Pure.

answer                            an idempotent request        any other
2xx 3xx 4xx 501 505               stands                       stands
429                               once more, where waited out  the same: it was refused before anything was done
503 with Retry-After              once more, where waited out  stands: what failed may have begun
other 5xx                         once more                    stands
nothing came back                 once more                    only if it was never sent
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from app.errors import Category, Sent, UpstreamError
from app.resilience import Backoff

# RFC 9110 section 9.2.2, and those that others define to be safe (RFC 4918, RFC 3253, RFC 5323).
IDEMPOTENT = frozenset(
    {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "PROPFIND", "REPORT", "SEARCH", "QUERY"}
)
_REPEATED = {Category.NETWORK, Category.TRANSIENT}
_FOR_GOOD = {501, 505}  # what the server cannot do it will not be able to do in a second


@dataclass(frozen=True)
class Manners:
    """`attempts`: tries at most, beside the one that follows a renewed token, which only `renews` allows. `repeatable`:
    whether the request may take effect twice. `waits_out`: whether a refusal is waited out rather than answered.
    `within`: seconds for all of it, until an answer begins; None: no limit of its own.
    """

    attempts: int
    repeatable: bool
    waits_out: bool = False
    renews: bool = True
    within: float | None = None

    def repeats_answer(self, status: int) -> bool:
        """Whether an answer of that status is no reason to stop."""
        if self.waits_out and status == 429:
            return True
        return self.repeatable and is_failure(status)

    def repeats_error(self, error: UpstreamError) -> bool:
        """The same, where nothing came back."""
        return error.category in _REPEATED and (self.repeatable or error.sent is Sent.NOT_SENT)

    def pause(
        self, backoff: Backoff, tries: int, *, retry_after: int | None, left: float | None
    ) -> float | None:
        """Seconds until the next try; None: there is none. A `Retry-After` is kept to, as far as what is `left` allows."""
        backoff = replace(backoff, attempts=self.attempts)
        if left is None:
            return backoff.delay(tries, retry_after=retry_after)
        delay = backoff.delay(tries)
        if delay is not None and retry_after is not None:
            delay = float(retry_after)
        return delay if delay is not None and delay < left else None


def is_failure(status: int) -> bool:
    """Whether the server failed, rather than refused: what its breaker counts."""
    return status >= 500 and status not in _FOR_GOOD


def is_repeatable(method: str, sent: Mapping[str, str]) -> bool:
    """Whether the request may be sent again though it may have been processed: by its method, or since it carries an
    Idempotency-Key, by which the provider knows it again. `sent`: the headers that go to the provider, by lower-case names."""
    return method in IDEMPOTENT or bool(sent.get("idempotency-key", "").strip())
