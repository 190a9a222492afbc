"""`Kept`: an answer that is in memory, what it was the answer to, and for how long it is good (RFC 9111). Pure.

All times are in seconds by the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple
from uuid import UUID

from app.grants.grant import GrantKey
from app.oauth.resources import Segments

_OVERHEAD_BYTES = 1024  # of the objects around a body, about
# RFC 9111 section 3.2: what a 304 says of the message rather than of what it names.
_OF_ONE_MESSAGE = frozenset(
    {"content-length", "content-encoding", "content-type", "content-range", "transfer-encoding"}
)
UNHEARD_SECONDS = (
    1.0  # as for how long an answer is good while nobody is heard who may have changed what it tells
)


class Key(NamedTuple):
    """What an answer is found by. The lineage is another one as soon as the grant may be of another account, and `base` where
    the registration leads elsewhere. `headers` are all that was sent with the request and may make a difference."""

    grant_id: UUID
    lineage_id: UUID
    base: str
    target: str
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Kept:
    """`asked_at`: when the request was sent that it answers, or that confirmed it. `age`: how old it was then, by what the
    provider says. `seconds`: for how long it was to be good when it came."""

    key: Key
    of: GrantKey
    path: Segments
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    asked_at: float
    age: int
    seconds: int

    @cached_property
    def named(self) -> Mapping[str, str]:
        """The headers by name."""
        return dict(self.headers)

    @cached_property
    def size(self) -> int:
        """Bytes, nearly."""
        texts = [*self.headers, *self.key.headers, (self.key.base, self.key.target)]
        return _OVERHEAD_BYTES + len(self.body) + sum(len(name) + len(value) for name, value in texts)

    @property
    def validators(self) -> tuple[tuple[str, str], ...]:
        """What the provider is asked with whether it still is so (RFC 9111 section 4.3.1)."""
        names = (("etag", "if-none-match"), ("last-modified", "if-modified-since"))
        return tuple((condition, self.named[name]) for name, condition in names if name in self.named)

    def is_good(self, now: float, *, seconds: float, is_heard: bool) -> bool:
        """Whether it may be answered as it is, where it is to be good for `seconds`. `is_heard`: whether a change that was
        made through another replica would be known here."""
        return now - self.asked_at < (seconds if is_heard else min(seconds, UNHEARD_SECONDS))

    def is_of_use(self, now: float) -> bool:
        """Whether it is good, or may be found to be so by asking; for as long again as it was good."""
        return now - self.asked_at < self.seconds * (2 if self.validators else 1)

    def age_at(self, now: float) -> int:
        """RFC 9111 section 4.2.3, with the request's beginning as the time of its answer: rather too old than too young."""
        return self.age + int(now - self.asked_at)

    def confirmed(
        self, headers: tuple[tuple[str, str], ...], *, asked_at: float, age: int, seconds: int
    ) -> Kept:
        """As a 304 with these headers makes it (RFC 9111 section 4.3.4)."""
        newer = [each for each in headers if each[0] not in _OF_ONE_MESSAGE]
        replaced = {name for name, _ in newer}
        older = [each for each in self.headers if each[0] not in replaced]
        return Kept(self.key, self.of, self.path, (*older, *newer), self.body, asked_at, age, seconds)
