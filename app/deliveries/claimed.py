"""A delivery that somebody has claimed to send it, and how his claim ends. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from app.deliveries.category import MOST_PUT_BACK_SECONDS, Step, Verdict, counted, delay, next_step
from app.deliveries.split import Half
from app.errors import Category
from app.grants.grant import GrantKey


@dataclass(frozen=True)
class Claimed:
    """`due_at` None: it was claimed by another, whose claim is over. `put_back_since`: it was claimed and not tried, ever since.
    `wrap`: its batch's."""

    id: UUID
    claim_id: UUID
    replica: str
    sending_since: datetime
    consumer_id: UUID
    consumer: str
    batch_id: UUID | None
    first_record: int | None
    records: int
    key: GrantKey
    grant_id: UUID
    method: str
    path: str
    sealed_request: bytes = field(repr=False)
    retry_on: Sequence[int]
    attempts: int
    max_attempts: int
    unknowns: int
    put_back_since: datetime | None = None
    wrap: str | None = None
    due_at: datetime | None = None


@dataclass(frozen=True)
class Ending:
    """What becomes of a claim: `attempts` and `unknowns` as they are then; `after`: seconds until it is due again."""

    step: Step
    verdict: Verdict
    attempts: int
    unknowns: int
    after: float | None = None
    milliseconds: int | None = None
    sealed_response: bytes | None = field(default=None, repr=False)
    halves: Sequence[tuple[Half, bytes]] = field(default=(), repr=False)  # each with its content sealed


def ending(
    claimed: Claimed,
    verdict: Verdict,
    *,
    milliseconds: int | None = None,
    sealed_response: bytes | None = None,
) -> Ending:
    """Without halves, which are for who can open its content to make."""
    put_back_for = 0.0
    if claimed.put_back_since is not None:
        put_back_for = (claimed.sending_since - claimed.put_back_since).total_seconds()
    if put_back_for >= MOST_PUT_BACK_SECONDS:  # nothing waits for ever without being counted
        verdict = counted(verdict)
    attempts = claimed.attempts + verdict.was_tried
    unknowns = claimed.unknowns + (verdict.was_tried and verdict.category is Category.UNKNOWN)
    step = next_step(
        verdict,
        attempts=attempts,
        max_attempts=claimed.max_attempts,
        unknowns=unknowns,
        retry_on=claimed.retry_on,
        records=claimed.records,
    )
    after = (
        delay(verdict, attempts=attempts, put_back_for=put_back_for)
        if step in (Step.RETRYING, Step.PUT_BACK)
        else None
    )
    return Ending(step, verdict, attempts, unknowns, after, milliseconds, sealed_response)
