"""Deliveries, wired together."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.gateway.cached import CachedGateway
from app.ground import Ground
from app.jobs import Job


@dataclass(frozen=True)
class Deliveries:
    """What the rest needs of them."""

    jobs: list[Job] = field(default_factory=list)


def wired_deliveries(on: Ground, gateway: CachedGateway) -> Deliveries:
    """Nothing is started."""
    return Deliveries()
