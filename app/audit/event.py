"""`AuditEvent`: who did what to which grant. It holds names and reasons, never a secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
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


@dataclass(frozen=True)
class RecordedEvent:
    """An event as the trail has it. `request_id` is that of the request it came from, if it came from one."""

    id: UUID
    at: datetime
    request_id: str | None
    event: AuditEvent


@dataclass(frozen=True)
class Filter:
    """Which events are wanted: those that agree in all that is given, from `since` up to before `until`."""

    actor: str | None = None
    action: str | None = None
    provider: str | None = None
    user_id: str | None = None
    grant_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
