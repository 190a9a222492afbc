"""`Selection`: which grants are listed. `Attempt`: one line of a grant's history. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True)
class Selection:
    """What is left out does not restrict. The `visible_*` are what the consumer may see: users exactly or by `prefix*`."""

    provider: str | None = None
    user_id: str | None = None
    status: str | None = None
    expires_before: datetime | None = None
    visible_providers: frozenset[str] | None = None
    visible_users: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Attempt:
    """How one refresh attempt ended."""

    id: UUID
    at: datetime
    replica: str
    trigger: str
    outcome: str
    category: str | None
    provider_code: str | None
    milliseconds: int
    generation: int
