"""What was seen of the protocol beside what callers were told: plain values. Times are the world's, in seconds since the
epoch; refresh tokens are named by their SHA-256."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.faults.evidence import Journaled

_UNSPENT = {"not processed: 503", "not processed: 429", "called dead"}


@dataclass
class Sending:
    """One refresh request, as both ends know it.

    `alone_until`: if its outcome is unknown, nobody may send this refresh token again before. `ending` is what the provider
    made of it at `ended_at`, as `gate.ENDINGS` calls it. `is_heard`: the replica understood tokens in the answer; `is_kept`: it came as
    far as T2 with them; `is_killed`: its process ended before that.
    """

    user: str
    family: str
    replica: str
    attempt_id: str
    spends: bytes
    at: float
    alone_until: float
    ending: str = ""
    issued: bytes | None = None
    is_reuse: bool = False
    is_half: bool = False
    is_heard: bool = False
    is_kept: bool = False
    is_killed: bool = False
    is_probe: bool = False
    ended_at: float = float("inf")

    def may_have_spent(self, at: float) -> bool:
        """Whether, as far as anybody could tell then, the provider may have exchanged the refresh token."""
        return self.is_killed or self.ended_at > at or self.ending not in _UNSPENT

    @property
    def is_lost(self) -> bool:
        """Whether its answer reached no journal, by no fault of ours."""
        return self.issued is not None and (not self.is_heard or (self.is_killed and not self.is_kept))


@dataclass(frozen=True)
class Kept:
    """A set of tokens that a journal had on disk, its refresh token, and the request that brought it."""

    entry: Journaled
    issued: bytes
    sending: Sending


@dataclass(frozen=True)
class State:
    """What the protocol knows of a grant."""

    status: str
    lineage_id: str
    generation: int
    epoch: int
    attempt_id: str | None
    fingerprint: bytes | None


@dataclass(frozen=True)
class Attempt:
    """A row of the history of refreshes. `generation` is the one that it led to, or left in place."""

    id: str
    lineage_id: str
    generation: int
    has_tokens: bool
    is_adoption: bool = False


@dataclass(frozen=True)
class Change:
    """Of a grant, in one statement; `before` is None where it is new. `attempt`: what was recorded along with it."""

    grant_id: str
    user: str
    before: State | None
    after: State
    attempt: Attempt | None = None

    @property
    def keeps_refresh_token(self) -> bool:
        """Whether it begins another lineage with the same one."""
        before, after = self.before, self.after
        return (
            before is not None
            and before.lineage_id != after.lineage_id
            and before.fingerprint == after.fingerprint
        )


@dataclass
class History:
    """All of it. `candidates` are attempts whose answers were kept for later at any time.

    `stood_still` are families one of whose refreshes met a process that stood still, or alone was cut off from PostgreSQL,
    for longer than its claim lasted; `overdue` are those of answers that nobody could commit for so long, since no replica
    was there, or none could reach PostgreSQL.
    """

    is_strict: bool = False
    sendings: list[Sending] = field(default_factory=list)
    journaled: list[Kept] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    candidates: frozenset[str] = frozenset()
    stood_still: set[str] = field(default_factory=set)
    overdue: set[str] = field(default_factory=set)

    def uncommitted(self) -> list[Kept]:
        """What was journaled, and is not stored yet."""
        stored = self.fingerprints()
        return [kept for kept in self.journaled if kept.issued not in stored.get(kept.entry.grant_id, ())]

    def fingerprints(self) -> Mapping[str, list[bytes]]:
        """The refresh tokens that each grant ever had, in order."""
        found: dict[str, list[bytes]] = {}
        for change in self.changes:
            if change.after.fingerprint is not None:
                found.setdefault(change.grant_id, []).append(change.after.fingerprint)
        return found
