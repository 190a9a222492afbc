"""`Claim`: the right to refresh one generation of one grant, and for how long. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from app.grants.grant import Grant, Trigger


@dataclass(frozen=True)
class Term:
    """How long a claim is good for. `hold_at_least`: reuse of the refresh token would revoke its family, so while the
    outcome is unknown nobody takes over for that long, nor while the present token lives (but for a minute)."""

    lease_ttl: timedelta
    hold_at_least: timedelta | None


@dataclass(frozen=True)
class Claim:
    """The right to send a grant's refresh token once, won in T1."""

    grant: Grant
    attempt_id: UUID
    epoch: int
    trigger: Trigger
    claimed_at: float  # monotonic seconds, taken before T1 was sent
    candidate_id: UUID | None = None  # an answer was kept that was given for this very refresh token
    has_candidates: bool = False  # answers of the lineage were kept, whatever they were given for
