"""`AuditEvent`: who did what to which grant. It holds names and reasons, never a secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID


@dataclass(frozen=True)
class AuditEvent:
    """`actor` is a consumer's name, or `broker` for what the service does by itself."""

    action: str
    actor: str = "broker"
    provider: str | None = None
    user_id: str | None = None
    grant_id: UUID | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class Disclosure(NamedTuple):
    """An access token that is given to a consumer, or used for one: the one of this generation of the grant."""

    actor: str
    provider: str
    user_id: str
    grant_id: UUID
    generation: int
    key_id: str | None = None  # of the consumer's keys, the one that was used
    action: str = "token.disclosed"

    def event(self, details: Mapping[str, Any]) -> AuditEvent:
        """What the trail says of it."""
        return AuditEvent(
            self.action,
            self.actor,
            self.provider,
            self.user_id,
            self.grant_id,
            {"generation": self.generation, "key_id": self.key_id, **details},
        )


@dataclass(frozen=True)
class NewEvent:
    """An event under the id that it will have, so that writing it may be repeated."""

    id: UUID
    request_id: str | None
    event: AuditEvent


@dataclass(frozen=True)
class RecordedEvent:
    """An event as the trail has it. `request_id` is that of the request it came from, if it came from one; `sequence` its
    place in the chain, None until it is chained."""

    id: UUID
    at: datetime
    request_id: str | None
    sequence: int | None
    event: AuditEvent


@dataclass(frozen=True)
class Filter:
    """Which events are wanted: those that agree in all that is given, from `since` up to before `until`."""

    actor: str | None = None
    action: str | None = None
    provider: str | None = None
    user_id: str | None = None
    grant_id: UUID | None = None
    request_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
