"""What people are told of a grant's state, and of several together. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from app.grants.grant import Grant, Health

Overall = Literal["healthy", "degraded", "unhealthy"]


def sentence(grant: Grant, now: datetime) -> str:
    """How the connection is, for the end user."""
    provider = grant.key.provider
    match grant.health(now):
        case Health.HEALTHY:
            return f"The connection to {provider} works."
        case Health.EXPIRING_SOON if grant.refreshable:
            return f"The connection to {provider} works and is about to be renewed."
        case Health.EXPIRING_SOON:
            return f"The access to {provider} ends within minutes and cannot be renewed by itself."
        case Health.EXPIRED if grant.refreshable:
            return f"The access to {provider} has run out and is renewed when it is next needed."
        case Health.FAILING:
            told = str((grant.last_error or {}).get("message", ""))
            return f"Renewing the access to {provider} fails. {told}".rstrip()
        case _:
            return grant.dead(grant.reconnect_reason or "no_refresh_token").detail


def overall(grants: Iterable[Grant], now: datetime) -> Overall:
    """`unhealthy` where an account has to be connected again, `degraded` where a renewal fails, else `healthy`."""
    verdict: Overall = "healthy"
    for grant in grants:
        health = grant.health(now)
        if health is Health.DEAD or (health is Health.EXPIRED and not grant.refreshable):
            return "unhealthy"
        if health is Health.FAILING:
            verdict = "degraded"
    return verdict
