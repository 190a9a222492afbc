"""`python -m bench.foreign [--pairs N]`: whether the time of an answer tells a foreign grant from an absent one.

A consumer that may see other users only asks for grants that are there and for some that are not, in random order, over one
connection. Prints the medians, their ratio, and how often the foreign one was the slower of a pair (half of the time, if
nothing is to be told).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from app import embedded
from tests.broker import ADMIN_KEY, Replicas, write_providers

ROUTES = ("GET /tokens/sandbox/{}", "POST /tokens/sandbox/{}/refresh", "DELETE /grants/sandbox/{}")
SCOPES = ["tokens:read", "tokens:refresh", "grants:write"]


async def measure(url: str, pairs: int) -> None:
    admin = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with httpx.AsyncClient(base_url=url, headers=admin) as http:
        for number in range(50):
            tokens = {"access_token": "at", "expires_in": 3600}
            (await http.put(f"/grants/sandbox/there-{number}", json=tokens)).raise_for_status()
        body = {"name": "foreign", "scopes": SCOPES, "users": ["others-*"]}
        consumer = (await http.post("/consumers", json=body)).json()
        key = (await http.post(f"/consumers/{consumer['id']}/keys")).json()["key"]
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}) as http:
        for route in ROUTES:
            say(route, *await _times(http, route, pairs))


async def _times(http: httpx.AsyncClient, route: str, pairs: int) -> tuple[list[float], list[float]]:
    method, path = route.split()
    there: list[float] = []
    absent: list[float] = []
    kinds: Mapping[str, list[float]] = {"there": there, "gone": absent}
    for number in range(pairs + 50):
        for kind in random.sample(sorted(kinds), 2):
            began = time.perf_counter()
            answer = await http.request(method, path.format(f"{kind}-{number % 50}"))
            took = time.perf_counter() - began
            assert answer.status_code == 404, answer.text
            if number >= 50:
                kinds[kind].append(took * 1000)
    return there, absent


def say(route: str, there: list[float], absent: list[float]) -> None:
    ratio = statistics.median(there) / statistics.median(absent)
    slower = sum(one > other for one, other in zip(there, absent, strict=True)) / len(there)
    sys.stdout.write(
        f"{route:34} foreign {statistics.median(there):.3f} ms, absent {statistics.median(absent):.3f} ms, "
        f"ratio {ratio:.3f}, foreign slower in {100 * slower:.1f} % of {len(there)} pairs\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.foreign", description="Foreign against absent.")
    parser.add_argument("--pairs", type=int, default=2000)
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory(prefix="broker-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL's own user has to pass
        with embedded.running(folder / "postgres") as url:
            replicas = Replicas(url, write_providers(folder / "providers", "http://127.0.0.1:1"), folder)
            try:
                asyncio.run(measure(replicas.start().url, pairs))
            finally:
                replicas.stop()


if __name__ == "__main__":
    main()
