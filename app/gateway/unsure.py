"""`Unsure`: where a write may still take effect that nobody knows the outcome of. Pure.

A call that was given up may be carried out all the same, a good while later: what is asked meanwhile may be another
answer by then, so it is given to whoever asks and not kept.
"""

from __future__ import annotations

from uuid import UUID

from app.gateway.meant import Meant
from app.grants.grant import GrantKey
from app.oauth.resources import Segments

UNSURE_SECONDS = 120.0  # about as long as anything between a caller and a server's code works on one request


class Unsure:
    """Times are in seconds by the monotonic clock."""

    def __init__(self) -> None:
        self._until: dict[str | None, dict[Meant, float]] = {}  # by grant

    def __len__(self) -> int:
        return sum(map(len, self._until.values()))

    def add(self, meant: Meant, now: float) -> None:
        """From now on, for as long as it may take."""
        self._until.setdefault(meant.grant_id, {})[meant] = now + UNSURE_SECONDS

    def covers(self, grant_id: UUID, of: GrantKey, path: Segments, now: float) -> bool:
        """Whether the answer to a GET of that path may become another one at any moment."""
        return any(
            now < until and meant.covers(grant_id, of, path)
            for each in (str(grant_id), None)
            for meant, until in self._until.get(each, {}).items()
        )

    def sweep(self, now: float) -> None:
        """Forgets what is over."""
        for grant_id, found in list(self._until.items()):
            left = {meant: until for meant, until in found.items() if now < until}
            if left:
                self._until[grant_id] = left
            else:
                del self._until[grant_id]
