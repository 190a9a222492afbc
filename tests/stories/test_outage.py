"""PostgreSQL hangs: health says so in time, cached tokens go on, and all is well soon after it is back."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, Replicas, bring
from tests.postgres import Postgres

HANGS_FOR = float(
    os.environ.get("TESTS_OUTAGE_SECONDS", "8")
)  # the minute takes a minute: `make test` tries less


async def until(holds: Callable[[], Awaitable[bool]], *, seconds: float) -> float:
    """Seconds until it held."""
    started = time.monotonic()
    while not await holds():
        assert time.monotonic() - started < seconds, "it did not hold in time"
        await asyncio.sleep(0.05)
    return time.monotonic() - started


async def test_a_database_that_hangs_is_named_in_time_and_cached_tokens_go_on(
    postgres: Postgres, providers_dir: Path, sandbox: Sandbox, tmp_path: Path
) -> None:
    replicas = Replicas(postgres.url, providers_dir, tmp_path)
    try:
        replica = replicas.start()
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        async with httpx.AsyncClient(base_url=replica.url, headers=headers, timeout=30) as http:
            for user in ("ada", "eve"):
                body = bring(sandbox.grant(user), expires_in=3600)
                assert (await http.put(f"/grants/sandbox/{user}", json=body)).status_code == 201
            assert (await http.get("/tokens/sandbox/ada")).json()["degraded"] is None
            postgres.hang()
            await _served_while_it_hangs(http)
            postgres.go_on()

            async def is_well() -> bool:
                health, token = await http.get("/health-check"), await http.get("/tokens/sandbox/ada")
                return health.json()["status"] == "healthy" and token.json()["degraded"] is None

            await until(is_well, seconds=10)
            refreshed = await http.post("/tokens/sandbox/eve/refresh", json={"generation": 1})
            assert refreshed.status_code == 200, refreshed.text
            assert refreshed.json()["generation"] == 2
    finally:
        postgres.go_on()
        replicas.stop()


async def _served_while_it_hangs(http: httpx.AsyncClient) -> None:
    started, slowest, reasons = time.monotonic(), 0.0, set()
    while time.monotonic() - started < HANGS_FOR:
        before = time.monotonic()
        answer = await http.get("/tokens/sandbox/ada")
        slowest = max(slowest, time.monotonic() - before)
        assert answer.status_code == 200, answer.text
        reasons.add(answer.json()["degraded"])
        before = time.monotonic()
        health = await http.get("/health-check")
        assert time.monotonic() - before < 2.5
        assert health.status_code == 503
        assert health.json()["checks"]["database"]["status"] == "unhealthy"
        assert (await http.get("/health-check/live")).status_code == 204
        await asyncio.sleep(0.1)
    assert reasons == {None, "database_unavailable"}  # at first nobody has noticed
    assert slowest < 2
    unknown = await http.get("/tokens/sandbox/eve")
    assert (unknown.status_code, unknown.json()["code"]) == (503, "overloaded")
    assert int(unknown.headers["Retry-After"]) >= 1
