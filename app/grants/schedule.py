"""When grants are refreshed: how long before the expiry, how long after a failure, and how that goes. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

PROBE_AFTER = timedelta(hours=1)  # until a dead grant is tried once more: providers have been wrong about it
_MAX_BACKOFF_SECONDS = 3600.0


@dataclass(frozen=True)
class Tally:
    """What became of the grants that were due."""

    due: int = 0
    refreshed: int = 0
    failed: int = 0
    postponed: int = 0


def refresh_margin(
    lifetime: timedelta, *, minimum: timedelta, earliest: timedelta | None = None
) -> timedelta:
    """How long before its expiry a token of this `lifetime` is due.

    `minimum` or a fifth of the lifetime, whichever is longer, but never more than half of the lifetime; then up to a
    tenth less, so that grants made together do not come due together. `earliest`: some providers refuse a refresh
    sooner than that before the expiry.
    """
    margin = min(max(minimum, lifetime * 0.2), lifetime * 0.5)
    if earliest is not None:
        margin = min(margin, earliest)
    return margin * random.uniform(0.9, 1.0)


def failure_backoff(failures: int) -> timedelta:
    """How long the scheduler leaves a grant alone after that many failures in a row: full jitter, at most an hour."""
    ceiling = min(_MAX_BACKOFF_SECONDS, 2.0 ** min(failures, 20))
    return timedelta(seconds=random.uniform(min(1.0, ceiling), ceiling))
