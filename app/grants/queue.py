"""How many requests may wait for refreshes at once. The one too many is told to come back, instead of piling up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from app.errors import Overloaded
from app.metrics import WAITERS

PER_GRANT = 1_000
PER_REPLICA = 10_000


class Queue:
    """Counts those who wait, per grant and together."""

    def __init__(self, *, per_grant: int = PER_GRANT, per_replica: int = PER_REPLICA) -> None:
        self._per_grant = per_grant
        self._per_replica = per_replica
        self._waiting: Counter[UUID] = Counter()
        self._together = 0

    @contextmanager
    def place(self, grant_id: UUID) -> Iterator[None]:
        """A place for as long as the request waits. Raises Overloaded where there is none left."""
        if self._waiting[grant_id] >= self._per_grant or self._together >= self._per_replica:
            raise Overloaded(
                "Too many requests are waiting for this connection to be renewed. Try again shortly.",
                retry_after=1,
            )
        self._waiting[grant_id] += 1
        self._together += 1
        WAITERS.inc()
        try:
            yield
        finally:
            WAITERS.dec()
            self._together -= 1
            self._waiting[grant_id] -= 1
            if not self._waiting[grant_id]:
                del self._waiting[grant_id]
