"""A provider's bad hour: when it calls so many grants dead that it is not believed, and when it is again. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

WINDOW = timedelta(minutes=10)
AT_LEAST = 5  # grants
PER_CENT = 5  # of the refreshes that ended one way or the other
BELIEVED_AFTER = timedelta(hours=1)


@dataclass(frozen=True)
class Incident:
    """One that is open. `recovered`: so many grants that it had refused were refreshed since."""

    id: UUID
    provider: str
    opened_at: datetime
    recovered: int


@dataclass(frozen=True)
class Toll:
    """How a provider's refreshes of the last WINDOW ended: grants it called dead for the first time, and refreshes that
    succeeded, of which it is enough to know `enough_refreshed`."""

    refused: int
    refreshed: int
    still_refused: int = 0  # of those that were refused before, again

    @property
    def is_incident(self) -> bool:
        """Whether more are called dead than users withdraw: at least 5, and more than 5 %."""
        return self.refused >= AT_LEAST and self.refused * 100 > PER_CENT * (self.refused + self.refreshed)


def enough_refreshed(refused: int) -> int:
    """With so many successes that many refusals are no incident; and one at least is worth knowing of."""
    return max(1, refused * (100 - PER_CENT) // PER_CENT)


def is_over(incident: Incident, toll: Toll, now: datetime) -> bool:
    """Whether the provider is believed again: it succeeds, refuses few new ones, and either has taken back what it said
    of some, and repeated it of none, or has kept to it for an hour."""
    if toll.is_incident or not toll.refreshed:
        return False
    return has_recovered(incident, toll) or now - incident.opened_at >= BELIEVED_AFTER


def has_recovered(incident: Incident, toll: Toll) -> bool:
    """Whether the provider takes back what it said."""
    return incident.recovered > 0 and not toll.still_refused
