"""What the fast lane answered and has told nobody of yet: metrics, uses, lines of the log and the audit trail, some moments
later and together."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import count
from typing import Protocol

from app.api.services import Services
from app.audit.disclosures import AggregatedDisclosures
from app.audit.event import Disclosure
from app.consumers.consumer import Consumer
from app.grants.grant import LeanGrant
from app.lines import Gaps, Lines
from app.metrics import REQUEST_SECONDS, REQUESTS
from app.tallied import Tallied
from app.telemetry import is_told

_LOGGER = "app.requests"
_AFTER_SECONDS = 0.1


class Noted(Protocol):
    """What is answered again and again. `hits` are the answers that nobody was told of yet."""

    grant: LeanGrant
    disclosure: Disclosure
    hits: int
    first_request_id: str | None


class Untold:
    """Costs an answer a few additions. A process that is killed loses what it has not told for a tenth of a second."""

    def __init__(self, services: Services, disclosures: AggregatedDisclosures) -> None:
        self._disclosures = disclosures
        self._known = services.known
        self._authenticator = services.authenticator
        self._uses = services.uses
        self._clock = services.clock
        self._given: list[Noted] = []
        self._requests: Counter[tuple[str, str, str | None]] = Counter()  # by method, route and key
        self._seconds: dict[str, Tallied] = {}  # by route
        self._series, self._numbers = secrets.token_hex(8).encode(), count(1)
        self._lines = Lines() if is_told(_LOGGER) else None

    def new_id(self) -> bytes:
        """For a request that brought none."""
        return b"%s%016x" % (self._series, next(self._numbers))

    def given(self, found: Sequence[Noted], request_id: bytes) -> None:
        """These are about to be answered to that request."""
        for each in found:
            if not each.hits:
                each.first_request_id = request_id.decode()
                self._given.append(each)
            each.hits += 1

    def answered(
        self,
        consumer: Consumer,
        method: str,
        route: str,
        request_id: bytes,
        began: float,
        *,
        texts: Mapping[str, str],
        numbers: Mapping[str, str],
    ) -> None:
        """The whole request, with what its line tells besides."""
        if not self._requests:
            asyncio.get_running_loop().call_later(_AFTER_SECONDS, self.settle)
        self._requests[method, route, consumer.key_id] += 1
        seconds = self._clock.monotonic() - began
        tallied = self._seconds.get(route)
        if tallied is None:
            tallied = self._seconds[route] = Tallied(REQUEST_SECONDS.labels(route))
        tallied.observe(seconds)
        if self._lines is not None:
            gaps = _gaps(method, route, consumer.name, tuple(texts), tuple(numbers))
            at = self._clock.now().isoformat()[: -len("+00:00")] + "Z"
            milliseconds = f"{seconds * 1000:.1f}"
            self._lines.add(
                gaps.filled(at, request_id.decode(), *texts.values(), milliseconds, *numbers.values())
            )

    def settle(self) -> None:
        """Tells of all that was answered since the last time."""
        given, self._given = self._given, []
        for each in given:
            self._disclosures.were_given(each.disclosure, times=each.hits, request_id=each.first_request_id)
            self._uses.note(each.grant.id)
            self._known.hit(each.hits)
            each.hits = 0
        requests, self._requests = self._requests, Counter()
        for (method, route, key_id), times in requests.items():
            REQUESTS.labels(method, route, "200").inc(times)
            self._authenticator.hit(key_id, times)
        for tallied in self._seconds.values():
            tallied.tell()
        if self._lines is not None:
            self._lines.write()


@lru_cache(1000)
def _gaps(method: str, route: str, consumer: str, texts: tuple[str, ...], numbers: tuple[str, ...]) -> Gaps:
    facts = {
        "method": method,
        "route": route,
        "status": 200,
        "outcome": "ok",
        "consumer": consumer,
        "event": "request",
        "level": "info",
        "logger": _LOGGER,
    }
    return Gaps(facts, texts=("at", "request_id", *texts), numbers=("milliseconds", *numbers))
