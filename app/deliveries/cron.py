"""`Cron`: what is due is sent when somebody's clock says so, where nobody's clock in here may run."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from app.clock import Clock
from app.consumers.failures import Failures
from app.deliveries.sending import Sender
from app.drain import Drain
from app.errors import NotFound, Overloaded, RateLimited, Unauthenticated
from app.telemetry import security_event

CALLS_A_MINUTE = 5
_WITHIN_SECONDS = 25.0  # what schedulers wait for at least
_RELEASE_SECONDS = 10.0  # of these


@dataclass(frozen=True)
class Ran:
    """What came of it."""

    claimed: int
    delivered: int
    dead: int
    released_stuck: int


class Cron:
    """Lets in who knows the secret, five times a minute from one address, right or wrong; each replica counts for itself."""

    def __init__(self, sender: Sender, drain: Drain, clock: Clock, *, secret: str | None) -> None:
        """`secret` None: nobody is let in, and nothing says that there is a door."""
        self._sender = sender
        self._drain = drain
        self._clock = clock
        self._secret = secret
        self._calls = Failures(clock, most=CALLS_A_MINUTE)

    def admit(self, given: str, *, address: str | None) -> None:
        """Raises NotFound where there is no secret, RateLimited, and Unauthenticated."""
        if self._secret is None:
            raise NotFound("There is nothing at this address. The routes are described at /docs.")
        if wait := self._calls.wait(address):
            raise RateLimited(
                f"This may be called {CALLS_A_MINUTE} times a minute. Try again shortly.", retry_after=wait
            )
        if self._calls.count(address):
            security_event("cron_limited", address=address)
        # Takes the same time for any wrong secret of this length.
        if not hmac.compare_digest(given.encode(), self._secret.encode()):
            security_event("cron_refused", address=address)
            raise Unauthenticated(key_given=bool(given))

    async def run(self) -> Ran:
        """Takes back what is stuck, and sends what is due, for 25 seconds at most. Raises Overloaded while this replica
        leaves."""
        if self._drain.begun:
            raise Overloaded("This replica is leaving. Try again shortly.", retry_after=2)
        until = self._clock.monotonic() + _WITHIN_SECONDS
        released = await self._sender.release_stuck(within=_RELEASE_SECONDS)
        claimed = delivered = dead = 0
        while not self._drain.begun and (left := until - self._clock.monotonic()) > 0:
            outcome = await self._sender.send_due(within=left)
            if not outcome.claimed:
                break
            claimed += outcome.claimed
            delivered += outcome.delivered
            dead += outcome.dead
        return Ran(claimed, delivered, dead, released)
