"""`Census`: how many grants there are, and how they are. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from app.grants.grant import Health


@dataclass(frozen=True)
class Group:
    """The grants of one provider that are alike in health; `due` ones are past their time of refresh."""

    provider: str
    health: Health
    number: int
    due: int
    soonest_expiry_at: datetime | None


@dataclass(frozen=True)
class Census:
    groups: tuple[Group, ...] = ()

    @property
    def due(self) -> int:
        return sum(group.due for group in self.groups)

    @property
    def soonest_expiry_at(self) -> datetime | None:
        """When the first token ends of those that have not ended yet; None where none will."""
        ends = (group.soonest_expiry_at for group in self.groups)
        return min((end for end in ends if end is not None), default=None)

    def number(self, health: Health) -> int:
        return sum(group.number for group in self.groups if group.health is health)
