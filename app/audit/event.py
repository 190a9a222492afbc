"""`AuditEvent`: who did what to which grant. It holds names and reasons, never a secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
