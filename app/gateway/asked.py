"""`Asked`: a GET or HEAD, as far as it can be answered from memory. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.gateway.directives import Headers, Wish, varying
from app.gateway.kept import Key
from app.grants.grant import LeanGrant
from app.oauth.resources import Segments, segments


@dataclass(frozen=True)
class Asked:
    """`seconds`: for how long an answer to it is good, by the registration. `grant`: whose answer it is, as far as is known."""

    key: Key
    grant: LeanGrant
    path: Segments
    seconds: int
    wish: Wish = field(repr=False)

    @classmethod
    def of(
        cls, grant: LeanGrant, base: str, target: str, *, sent: Headers, wish: Wish, seconds: int
    ) -> Asked:
        """`sent`: the headers that go to the provider."""
        key = Key(grant.id, grant.lineage_id, base, target, varying(sent))
        return cls(key, grant, segments(target), seconds, wish)

    @property
    def good_seconds(self) -> float:
        """How old an answer may be that was kept, by the registration and by whoever asks."""
        if self.wish.anew:
            return 0.0
        return self.seconds if self.wish.most_age is None else min(self.seconds, self.wish.most_age)
