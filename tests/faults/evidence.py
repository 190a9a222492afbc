"""What is left to judge once a scenario is over: plain values, whoever collected them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["fetch", "refresh", "delete"]
NO_ANSWER = 0


@dataclass(frozen=True)
class Answer:
    """What one caller was told. Times are seconds since the epoch on this machine's clock.

    `status` is `NO_ANSWER` where the connection was refused or lost, and `code` what the client calls that; `named` is the generation that a refresh named as
    refused by a resource server.
    """

    asked_at: float
    answered_at: float
    kind: Kind
    user: str
    replica: int
    status: int
    code: str | None = None
    retryable: bool = True
    retry_after: int | None = None
    named: int | None = None
    grant_id: str | None = None
    generation: int | None = None
    access_token: str | None = field(default=None, repr=False)
    expires_in: int | None = None
    degraded: str | None = None

    @property
    def has_token(self) -> bool:
        return self.status == 200 and self.access_token is not None


@dataclass(frozen=True)
class GrantRow:
    """A row of `grants`; `takeover_in` are seconds from when it was read, on PostgreSQL's clock."""

    id: str
    user: str
    status: str
    reconnect_reason: str | None
    generation: int
    fingerprint: bytes | None
    attempt_id: str | None = None
    owner: str | None = None
    takeover_in: float | None = None
    lineage_id: str = ""
    failures: int = 0


@dataclass(frozen=True)
class AttemptRow:
    """A row of `refresh_attempts`, in the order of their commits. `code`: the provider's, or what we add in its place."""

    grant_id: str
    lineage_id: str
    outcome: str
    generation: int
    id: str = ""
    code: str | None = None


@dataclass(frozen=True)
class Journaled:
    """An answer that was in a journal at some time, by its attempt; `generation` is the one that was refreshed."""

    attempt_id: str
    grant_id: str
    lineage_id: str
    generation: int


@dataclass(frozen=True)
class Family:
    user: str
    revoked: bool


@dataclass(frozen=True)
class RefreshToken:
    family_id: str
    spent_at: float | None


@dataclass(frozen=True)
class Upstream:
    """The authorization server's memory: refresh tokens by SHA-256, access tokens to their user and end.

    `grace_seconds`: how long a spent refresh token is still good; None where it is not.
    """

    families: Mapping[str, Family] = field(default_factory=dict)
    refresh_tokens: Mapping[bytes, RefreshToken] = field(default_factory=dict)
    access_tokens: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    max_in_flight_by_user: Mapping[str, int] = field(default_factory=dict)
    refreshes: int = 0
    refreshes_by_user: Mapping[str, int] = field(default_factory=dict)
    reuse_detected: int = 0
    unknown_refresh_tokens: int = 0
    elsewhere: int = 0
    grace_seconds: float | None = None


@dataclass(frozen=True)
class Down:
    """A replica was out of service by the scenario's doing. `gently`: by SIGTERM, so that what had been asked before it
    is answered all the same."""

    replica: int
    since: float
    until: float
    gently: bool = False


@dataclass(frozen=True)
class Departure:
    """How a replica ended that was told to: its exit code, and the refreshes that it left without an end."""

    replica: int
    code: int
    left: int


@dataclass(frozen=True)
class Allowed:
    """What this scenario may cost. `pauses`: a process stood still, so two may have held one claim in turn."""

    losses: int = 0
    reuse: int = 0
    pauses: bool = False


@dataclass(frozen=True)
class Evidence:
    """All of it. `unsettled` are the users whose grants gave no final answer before time ran out.

    `journaled` is what was seen in journals at any time, `outstanding` how much is left in each of them, and `candidates`
    are the attempts whose answers are kept for later.

    `idle_in_transaction_seconds` is the longest that any connection kept a transaction open without asking anything,
    times aside in which a process had been stopped.
    """

    answers: Sequence[Answer] = ()
    upstream: Upstream = Upstream()
    grants: Sequence[GrantRow] = ()
    attempts: Sequence[AttemptRow] = ()
    journaled: Sequence[Journaled] = ()
    outstanding: Mapping[str, int] = field(default_factory=dict)
    candidates: frozenset[str] = frozenset()
    written: Mapping[str, bytes] = field(default_factory=dict)
    withdrawn: frozenset[str] = frozenset()  # users who withdrew their consent at the provider
    unsettled: frozenset[str] = frozenset()
    downs: Sequence[Down] = ()
    departures: Sequence[Departure] = ()
    idle_in_transaction_seconds: float = 0.0
    collected_at: float = 0.0
    allowed: Allowed = Allowed()

    def deleted_at(self) -> dict[str, float]:
        """When each deleted grant's owner was told so, by user."""
        ends: dict[str, float] = {}
        for answer in self.answers:
            if answer.kind == "delete" and answer.status == 200:
                ends.setdefault(answer.user, answer.answered_at)
        return ends
