"""Circuit breakers: what to do with an upstream that fails. No IO, no clock: `now` is given.

A breaker's life:

    CLOSED --`failures` failed operations in a row--> OPEN --cool-down over--> HALF_OPEN
       ^                                                ^                          |
       |                                                +---- the probe failed ----+   (cool-down doubles)
       +--------------------------------------------------- the probe succeeded ---+

An operation counts once, whatever number of tries it took. A breaker may also be told: by other replicas, which met what
opens it (`adopt`), and by operators (`trip`, `reset`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum

from app.errors import Category, ProviderUnavailable, Sent, UpstreamError

_COUNTED = {Category.NETWORK, Category.TRANSIENT}


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True)
class BreakerKey:
    provider: str
    kind: str
    host: str

    @property
    def name(self) -> str:
        return f"{self.provider}:{self.kind}:{self.host}"


@dataclass(frozen=True)
class Opening:
    """Nobody asks from `opened_at` until `probe_at`. `since` is when the first of a row of openings began, between which
    every probe failed."""

    since: float
    opened_at: float
    probe_at: float
    cooldown_seconds: float


@dataclass(frozen=True)
class Judgement:
    """What a breaker came to by what it met itself; without an opening it closed."""

    at: float
    opening: Opening | None = None


@dataclass
class Breaker:
    """One upstream's breaker. All of its methods run on one event loop and never wait, so need no lock."""

    key: BreakerKey
    threshold: int
    cooldown_seconds: float
    cooldown_max_seconds: float
    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    opening: Opening | None = None  # None while it is closed
    judgement: Judgement | None = None  # None also once it was told otherwise
    turned: Counter[BreakerState] = field(default_factory=Counter)  # how often to each state
    _probing: bool = field(default=False, repr=False)
    _turns: int = field(default=0, repr=False)

    @property
    def opened_at(self) -> float | None:
        return None if self.opening is None else self.opening.opened_at

    @property
    def probe_at(self) -> float | None:
        """When an operation is let through again, or was; None while it is closed."""
        return None if self.opening is None else self.opening.probe_at

    def check(self, now: float) -> None:
        """Raises ProviderUnavailable while no operation would be admitted; takes nothing."""
        if now < self._open_until:
            raise self._refusal(self._open_until - now)
        if self.state is BreakerState.HALF_OPEN and self._probing:
            raise self._refusal(1)

    def admit(self, now: float) -> int:
        """Lets one operation through and answers its permit; half-open it is the only probe.

        Raises ProviderUnavailable where none is let through.
        """
        self.check(now)
        if self.state is BreakerState.OPEN:
            self._turn(BreakerState.HALF_OPEN, self.opening)
        self._probing = self.state is BreakerState.HALF_OPEN
        return self._turns

    def succeeded(self, permit: int, now: float) -> None:
        if permit != self._turns:
            return  # it began before the state last changed, and tells of the past
        self.failures = 0
        if self.state is not BreakerState.CLOSED:
            self._turn(BreakerState.CLOSED, None)
            self.judgement = Judgement(now)

    def failed(self, permit: int, now: float) -> None:
        if permit != self._turns:
            return
        self.failures += 1
        if self.opening is None and self.failures < self.threshold:
            return
        since, cooldown = now, self.cooldown_seconds
        if self.opening is not None:  # it was the probe
            since = self.opening.since
            cooldown = min(self.opening.cooldown_seconds * 2, self.cooldown_max_seconds)
        opening = Opening(since, now, now + cooldown, cooldown)
        self._turn(BreakerState.OPEN, opening)
        self.judgement = Judgement(now, opening)

    def abandoned(self, permit: int) -> None:
        """The operation ended without telling anything of the upstream: the next one may probe."""
        if permit == self._turns:
            self._probing = False

    def reset(self) -> None:
        """Closed, by an operator's word; what is under way tells of the past."""
        self.failures, self.judgement = 0, None
        self._turn(BreakerState.CLOSED, None)

    def trip(self, opening: Opening) -> None:
        """Open until then at least, by an operator's word; what is under way tells of the past. May be repeated."""
        if opening.probe_at <= self._open_until:
            return
        self.judgement = None
        self._turn(BreakerState.OPEN, opening)

    def adopt(self, opening: Opening, now: float) -> None:
        """Open until then at least, since another replica met what opens it. May be repeated.

        Not where our own probe looks how it is, nor where one has found it well since this row of openings began: a
        replica that alone cannot reach the upstream does not keep all others from it.
        """
        if self._probing or opening.probe_at <= max(now, self._open_until):
            return
        if self.opening is not None and self.state is BreakerState.OPEN:
            self.opening = replace(
                self.opening, probe_at=opening.probe_at, cooldown_seconds=opening.cooldown_seconds
            )
        elif not self._closed_after(opening.since):
            self.judgement = None
            self._turn(BreakerState.OPEN, opening)

    @property
    def _open_until(self) -> float:
        if self.opening is None or self.state is not BreakerState.OPEN:
            return -math.inf
        return self.opening.probe_at

    def _closed_after(self, time: float) -> bool:
        """Whether a probe of our own has closed it since, and nothing has happened to it after that."""
        return self.judgement is not None and self.judgement.opening is None and self.judgement.at >= time

    def _turn(self, state: BreakerState, opening: Opening | None) -> None:
        if state is not self.state:
            self.turned[state] += 1
        self.state, self.opening, self._probing = state, opening, False
        self._turns += 1

    def _refusal(self, seconds: float) -> ProviderUnavailable:
        return ProviderUnavailable(
            f"{self.key.provider} has not been answering and is being left alone for a moment. Try again shortly.",
            provider=self.key.provider,
            sent=Sent.NOT_SENT,
            provider_code="breaker_open",
            retry_after=max(1, math.ceil(seconds)),
        )


class Breakers:
    """The registry: a breaker for each provider, kind of endpoint and host."""

    def __init__(
        self,
        now: Callable[[], float],
        *,
        failures: int = 3,
        cooldown_seconds: float = 15.0,
        cooldown_max_seconds: float = 300.0,
    ) -> None:
        self._now = now
        self._failures = failures
        self._cooldown_seconds = cooldown_seconds
        self._cooldown_max_seconds = cooldown_max_seconds
        self._breakers: dict[BreakerKey, Breaker] = {}

    def __iter__(self) -> Iterator[Breaker]:
        return iter(tuple(self._breakers.values()))

    def of(self, key: BreakerKey) -> Breaker:
        if key not in self._breakers:
            self._breakers[key] = Breaker(
                key, self._failures, self._cooldown_seconds, self._cooldown_max_seconds
            )
        return self._breakers[key]

    def check(self, key: BreakerKey) -> None:
        """Raises ProviderUnavailable while the breaker would refuse."""
        self.of(key).check(self._now())

    def admits(self, key: BreakerKey) -> bool:
        """Whether an operation would be let through now."""
        try:
            self.check(key)
        except ProviderUnavailable:
            return False
        return True

    @contextmanager
    def operation(self, key: BreakerKey) -> Iterator[bool]:
        """Runs one operation through the breaker and learns from how it ends. Yields whether it is the probe of a breaker
        that is half-open: that is one question, and is not repeated.

        Raises ProviderUnavailable without running it where the breaker refuses. Network errors, time-outs and
        5xx count against the upstream; an answer that is merely unwelcome counts for it; anything else
        (a cancellation, a fault of ours) tells nothing.
        """
        breaker = self.of(key)
        permit = breaker.admit(self._now())
        try:
            yield breaker.state is BreakerState.HALF_OPEN
        except UpstreamError as error:
            if error.category in _COUNTED:
                breaker.failed(permit, self._now())
            elif error.sent is Sent.NOT_SENT:
                breaker.abandoned(permit)
            else:
                breaker.succeeded(permit, self._now())
            raise
        except BaseException:
            breaker.abandoned(permit)
            raise
        else:
            breaker.succeeded(permit, self._now())
