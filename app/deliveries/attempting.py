"""One attempt at a delivery: opened, sent with its id as Idempotency-Key, judged, and its claim ended.

a fresh token -> the gateway, one request -> what it means -> how the claim ends
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

from app.bounded import Bounded
from app.clock import Clock
from app.deliveries.answer import KeptAnswer
from app.deliveries.category import Step, Verdict, lost, of_answer, of_error, of_token_error
from app.deliveries.claimed import Claimed, Ending, ending
from app.deliveries.delivery import Content, request_place, response_place
from app.deliveries.endings import Endings
from app.deliveries.split import halves
from app.errors import BrokerError, Category, UpstreamError
from app.gateway.cached import CachedGateway
from app.gateway.call import Answer, Call
from app.grants.grant import GrantKey
from app.grants.refresh import Refresher
from app.grants.token import Need
from app.ids import uuid7
from app.metrics import DELIVERY_ATTEMPTS
from app.telemetry import logger
from app.vault.seal import CannotOpen
from app.vault.vault import Vault

log = logger(__name__)

_MOST_BYTES = 64 * 1024
_KEY = "idempotency-key"
_REST_SECONDS = 5.0  # of a grant for which there was no token
_REST_REFUSED_SECONDS = 60.0  # the same, where its token endpoint has answered what is of no use
_RESTING_MOST = 10_000


class Attempts:
    """Makes attempts. `longest`: seconds that one may take, so that its claim is not stuck before it ends: half for a token,
    half for the answer's head (`within`) and then its body (`body_within`), without which the head stands all the same."""

    def __init__(
        self,
        vault: Vault,
        refresher: Refresher,
        gateway: CachedGateway,
        endings: Endings,
        clock: Clock,
        *,
        longest: float,
        within: float,
        body_within: float,
    ) -> None:
        self._vault = vault
        self._refresher = refresher
        self._gateway = gateway
        self._endings = endings
        self._clock = clock
        self._longest = longest
        self._within = within
        self._body_within = body_within
        self._resting: Bounded[GrantKey, tuple[Verdict, float]] = Bounded(_RESTING_MOST)

    async def make(self, claimed: Claimed) -> Ending:
        """How it ended. Raises DatabaseUnavailable where that cannot be written."""
        started, content, answer = self._clock.monotonic(), None, None
        try:
            content = Content.of(self._vault.open(claimed.sealed_request, request_place(claimed.id)))
        except CannotOpen as error:
            log.error("delivery.unreadable", delivery_id=str(claimed.id), detail=str(error))
            verdict = Verdict(Category.PERMANENT, "unreadable")
        except BrokerError as error:  # its key is not known here yet
            verdict = of_token_error(error)
        else:
            verdict, answer = await self._tried(claimed, content)
        milliseconds = round((self._clock.monotonic() - started) * 1000)
        planned = self._planned(claimed, verdict, content, answer, milliseconds=milliseconds)
        if planned.verdict.was_tried:
            DELIVERY_ATTEMPTS.labels(claimed.key.provider, verdict.category or "delivered").inc()
        return replace(planned, step=await self._endings.end(claimed, planned))

    async def _tried(self, claimed: Claimed, content: Content) -> tuple[Verdict, Answer | None]:
        # A token first, and apart: without one nothing was sent, whatever became of asking for it.
        if (refused := await self._refused(claimed.key)) is not None:
            return refused, None
        try:
            async with asyncio.timeout(self._longest / 2):
                answer = await self._gateway.whole(
                    self._call(claimed, content), most=_MOST_BYTES, seconds=self._body_within
                )
        except BrokerError as error:
            return of_error(error, claimed.method), None
        except TimeoutError:
            return lost(claimed.method, code="timeout"), None
        except Exception:  # one delivery's trouble is not the others'
            log.exception("delivery.crashed", delivery_id=str(claimed.id))
            return lost(claimed.method, code="internal_error"), None
        return of_answer(answer.status, answer.headers, unknowns=claimed.unknowns), answer

    async def _refused(self, key: GrantKey) -> Verdict | None:
        """What came of asking for a token, where there is none. Nobody asks again for a while: all that waits for one of the
        grant's is told the same."""
        if (resting := self._rests(key)) is not None:
            return resting
        try:
            async with asyncio.timeout(self._longest / 2):
                await self._refresher.fresh(key, Need())
        except BrokerError as error:
            verdict = of_token_error(error)
            if isinstance(error, UpstreamError):
                self._rest(key, verdict)
            return verdict
        except TimeoutError:
            return Verdict(Category.TRANSIENT, "no_token_in_time", was_tried=False)
        return None

    def _rest(self, key: GrantKey, verdict: Verdict) -> None:
        least = _REST_REFUSED_SECONDS if verdict.was_tried else _REST_SECONDS
        until = self._clock.monotonic() + max(verdict.retry_after or 0.0, least)
        self._resting.put(key, (verdict, until))

    def _rests(self, key: GrantKey) -> Verdict | None:
        verdict, until = self._resting.get(key, (None, 0.0))
        left = until - self._clock.monotonic()
        return None if verdict is None or left <= 0 else replace(verdict, retry_after=left, was_tried=False)

    def _call(self, claimed: Claimed, content: Content) -> Call:
        return Call(
            claimed.key,
            claimed.method,
            content.target(claimed.path).removeprefix("/"),
            headers=tuple(_headers(claimed, content)),
            body=content.as_sent(claimed.wrap),
            attempts=1,
            within=self._within,
            grant_id=claimed.grant_id,
        )

    def _planned(
        self,
        claimed: Claimed,
        verdict: Verdict,
        content: Content | None,
        answer: Answer | None,
        *,
        milliseconds: int,
    ) -> Ending:
        sealed = None
        if answer is not None:
            sealed = self._vault.seal(KeptAnswer.of(answer).text(), response_place(claimed.id))
        planned = ending(claimed, verdict, milliseconds=milliseconds, sealed_response=sealed)
        if planned.step is not Step.SPLIT or content is None:
            return planned
        made = halves(
            content, first_record=claimed.first_record or 0, new_id=lambda: uuid7(self._clock.now())
        )
        return replace(
            planned,
            halves=[(each, self._vault.seal(each.content.text(), request_place(each.id))) for each in made],
        )


def _headers(claimed: Claimed, content: Content) -> Iterator[tuple[str, str]]:
    """The caller's, but for a key of its own: that one is this delivery's, whatever its body was made of."""
    given = [(name.lower(), value) for name, value in content.headers]
    has_body = content.body is not None or content.records is not None
    if has_body and "content-type" not in dict(given):
        yield "content-type", "application/json"
    yield _KEY, str(claimed.id)
    yield from ((name, value) for name, value in given if name != _KEY)
