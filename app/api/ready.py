"""`Ready`: the answer to one consumer's request for one token, built once and given until anything about it changes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.api.asked import Asked
from app.api.tokens import disclosure_of, token_answer
from app.audit.event import Disclosure
from app.consumers.consumer import Consumer
from app.grants.grant import Grant
from app.grants.token import Token, at_hand_until

# Outside of strings only: in them quotes are escaped.
_EXPIRES_IN = re.compile(rb'(?<=,"expires_in":)(?:\d+|null)(?=,)')


@dataclass(slots=True)
class Ready:
    """`until` and `expires_at` are by the monotonic clock; None: never. `hits` are those not told of yet."""

    consumer: Consumer
    grant: Grant
    asked: Asked
    before: bytes  # the body up to the seconds that are left, and from there
    behind: bytes
    until: float | None
    expires_at: float | None
    disclosure: Disclosure
    hits: int = 0
    first_request_id: str | None = None

    def body(self, now: float) -> bytes:
        left = b"null" if self.expires_at is None else b"%d" % max(0, self.expires_at - now)
        return self.before + left + self.behind


def ready(asked: Asked, consumer: Consumer, token: Token, *, now: datetime, monotonic: float) -> Ready:
    """The answer, of a token that is at hand."""
    grant = token.grant

    def at(moment: datetime | None) -> float | None:
        return None if moment is None else monotonic + (moment - now) / timedelta(seconds=1)

    before, behind = _EXPIRES_IN.split(token_answer(token, now).model_dump_json().encode(), maxsplit=1)
    return Ready(
        consumer=consumer,
        grant=grant,
        asked=asked,
        before=before,
        behind=behind,
        until=at(at_hand_until(grant, asked.need)),
        expires_at=at(grant.expires_at),
        disclosure=disclosure_of(consumer, token),
    )
