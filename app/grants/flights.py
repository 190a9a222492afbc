"""Single flight: this process refreshes one generation of a grant once, whoever and however many ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from uuid import UUID

from app.drain import Drain
from app.errors import BrokerError, Overloaded
from app.grants.grant import LeanGrant
from app.metrics import REFRESHES_IN_FLIGHT
from app.telemetry import logger

log = logger(__name__)

FlightKey = tuple[UUID, int]


class Flights:
    """The refreshes under way. Each is a task of its own, which no caller's hang-up cancels."""

    def __init__(self, drain: Drain) -> None:
        self._flights: dict[FlightKey, asyncio.Task[LeanGrant]] = {}
        self._drain = drain

    def join(
        self, key: FlightKey, start: Callable[[], Coroutine[None, None, LeanGrant]]
    ) -> asyncio.Task[LeanGrant]:
        """The flight of `key`, begun with `start` if there is none. Await it shielded.

        Raises Overloaded where it would have to begin and this replica is shutting down.
        """
        if key not in self._flights:
            if self._drain.begun:
                raise Overloaded(
                    "This replica is shutting down; ask again, another one answers.", retry_after=1
                )
            flight = asyncio.create_task(start(), name=f"refresh {key[0]}")
            self._flights[key] = flight
            REFRESHES_IN_FLIGHT.inc()
            flight.add_done_callback(lambda task: self._landed(key, task))
        return self._flights[key]

    def under_way(self, key: FlightKey) -> bool:
        """Whether that generation is being refreshed here at this moment."""
        return key in self._flights

    async def land(self) -> int:
        """Waits for those under way as long as the drain allows; how many were still in the air then."""
        if not self._flights:
            return 0
        _, running = await asyncio.wait(set(self._flights.values()), timeout=self._drain.remaining_seconds())
        return len(running)

    def _landed(self, key: FlightKey, flight: asyncio.Task[LeanGrant]) -> None:
        del self._flights[key]
        REFRESHES_IN_FLIGHT.dec()
        if flight.cancelled():
            return
        error = flight.exception()  # asked for here, since nobody may be waiting any more
        if error is not None and not isinstance(error, BrokerError):
            log.error("refresh.crashed", grant_id=str(key[0]), exc_info=error)
