"""A replica of its own as far as APIs' rates go: asks without a pause, and writes down when it was admitted.

python -m tests.pacing_process URL LIMIT PER_SECONDS WORKERS SECONDS NAME < (it begins with the first line) > monotonic times
"""

from __future__ import annotations

import asyncio
import sys
import time
from uuid import UUID

from app.apis.pacing import Pacer
from app.clock import SystemClock
from app.db import Database
from app.errors import ProviderUnavailable
from app.listener import Listener
from app.oauth.client import OAuthClient
from app.oauth.provider import Provider


def client_of(limit: int, per_seconds: int, *, name: str = "acme", per_grant: bool = False) -> OAuthClient:
    """A registration at a provider with that rate."""
    rate = [{"limit": limit, "per_seconds": per_seconds}]
    fields = {"name": name, "token_url": "https://login.acme.example/token"}
    api = {"rate_per_grant" if per_grant else "rate": rate}
    return OAuthClient(name, Provider.model_validate({**fields, "api": api}))


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _ask(url: str, client: OAuthClient, *, workers: int, seconds: float, name: str) -> None:
    db, clock = Database(url, pool_size=3), SystemClock()
    pacer = Pacer(db, Listener(url, clock), clock, replica=name)
    await db.ping()
    _tell("ready")
    await asyncio.to_thread(sys.stdin.readline)
    until = time.monotonic() + seconds

    async def work() -> None:
        while time.monotonic() < until:
            try:
                await pacer.admit(client, UUID(int=7), within=20)
                _tell(str(time.monotonic()))
                await asyncio.sleep(0.02)
            except ProviderUnavailable as error:
                await asyncio.sleep(min(0.2, error.retry_after or 0))

    await asyncio.wait([asyncio.create_task(work()) for _ in range(workers)], timeout=seconds)


if __name__ == "__main__":
    asked_url, limit, per_seconds, workers, seconds, name = sys.argv[1:]
    asyncio.run(
        _ask(
            asked_url,
            client_of(int(limit), int(per_seconds)),
            workers=int(workers),
            seconds=float(seconds),
            name=name,
        )
    )
