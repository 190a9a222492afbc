"""Calls of the gateway, as tests make them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from app.gateway.cached import CachedGateway
from app.gateway.call import Call
from app.gateway.counts import Outcome
from app.grants.grant import GrantKey
from tests.broker import Broker

PROVIDER = "answering"


@dataclass(frozen=True)
class Got:
    """An answer as it came."""

    status: int
    outcome: Outcome
    attempts: int
    headers: dict[str, str]
    body: bytes
    age: int | None

    @property
    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


async def call(
    at: Broker | CachedGateway,
    user: str,
    target: str = "portfolio",
    method: str = "GET",
    *,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    within: float = 10.0,
    account: str = "default",
) -> Got:
    """What the gateway gives."""
    gateway = at.services.gateway if isinstance(at, Broker) else at
    given = tuple((headers or {}).items())
    wanted = Call(GrantKey(PROVIDER, user, account), method, target, given, body, within=within)
    async with gateway.open(wanted) as reply:
        whole = b"".join([chunk async for chunk in reply.chunks()])
        return Got(reply.status, reply.outcome, reply.attempts, dict(reply.headers), whole, reply.age)


async def connect(broker: Broker, user: str, *, token: str | None = None) -> None:
    """A grant whose token is the user's."""
    await broker.put(f"{PROVIDER}/{user}", {"access_token": f"token-of-{token or user}", "expires_in": 3600})
