"""`python -m bench.growth`: whether a fetch and the search for what is due cost the same with 10 thousand grants and a million.

All sizes at once, side by side in one PostgreSQL, a broker for each, and asked in turn in random order, so that whatever
else the machine does hits all alike. Writes bench/results/growth.md and growth.json.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import asyncpg
import httpx

from app.clock import SystemClock
from app.db import Database
from app.grants import census_store, due_store
from bench.growth_results import keep, summed_up
from bench.seeded import PROVIDER, Seeded, plain, postgres, say, seeded
from tests.broker import ADMIN_KEY, Replicas, write_providers

_CLOCK = SystemClock()
_WARM_UP = 300
_TAKEN = 64
_LEAST_LIFE = "15 minutes"  # beyond the refresh margin, for as long as this takes

# Work that is timed, and what undoes it, which is not.
Undo = Callable[[], Awaitable[None]]
Work = Callable[[], Awaitable[Undo | None]]


@dataclass(frozen=True)
class Times:
    """Milliseconds, of each size."""

    name: str
    by_size: dict[int, list[float]]


async def alternated(name: str, work: dict[int, Work], *, samples: int, warm_up: int = _WARM_UP) -> Times:
    """The times of `work`, done so often at each size, in an order that is different each time."""
    times: dict[int, list[float]] = {size: [] for size in work}
    for number in range(warm_up + samples):
        for size in random.sample(sorted(work), len(work)):
            began = time.perf_counter()
            undo = await work[size]()
            took = (time.perf_counter() - began) * 1000
            if undo is not None:
                await undo()
            if number >= warm_up:
                times[size].append(took)
    return Times(name, times)


async def fetches(databases: Sequence[Seeded], urls: Sequence[str], *, samples: int) -> Times:
    """Cold ones: each key is drawn from all, and asked once."""
    async with AsyncExitStack() as stack:
        work: dict[int, Work] = {}
        for made, url in zip(databases, urls, strict=True):
            headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
            http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, headers=headers))
            users = await _drawn(made, count=_WARM_UP + samples)
            work[made.grants] = _fetch(http, users)
        return await alternated("cold fetch", work, samples=samples)


def _fetch(http: httpx.AsyncClient, users: list[str]) -> Work:
    async def fetch() -> None:
        answer = await http.get(f"/tokens/{PROVIDER}/{users.pop()}")
        assert answer.status_code == 200 and answer.json()["degraded"] is None, answer.text

    return fetch


async def _drawn(made: Seeded, *, count: int) -> list[str]:
    connection = await asyncpg.connect(plain(made.owner_url))
    query = (
        f"SELECT user_id FROM grants WHERE next_refresh_at > now() + interval '{_LEAST_LIFE}'"
        " ORDER BY random() LIMIT $1"
    )
    try:
        return [row["user_id"] for row in await connection.fetch(query, count)]
    finally:
        await connection.close()


async def searches(databases: Sequence[Seeded], *, samples: int) -> list[Times]:
    """For providers that have something due, and for 64 grants of one, which is undone. And the census, which reads them all."""
    async with AsyncExitStack() as stack:
        dbs: dict[int, Database] = {}
        for made in databases:
            dbs[made.grants] = db = Database(made.url, pool_size=1)
            stack.push_async_callback(db.close)
        names = ["github", PROVIDER, "microsoft", "slack"]
        return [
            await alternated(
                "providers with something due",
                {size: _providers(db, names) for size, db in dbs.items()},
                samples=samples,
            ),
            await alternated(
                f"{_TAKEN} due grants taken", {size: _take(db) for size, db in dbs.items()}, samples=samples
            ),
            await alternated(
                "census of all grants", {size: _census(db) for size, db in dbs.items()}, samples=10, warm_up=1
            ),
        ]


def _providers(db: Database, names: list[str]) -> Work:
    async def providers() -> None:
        async with db.begin() as tx:
            assert await due_store.providers(tx, names, cutoff=_CLOCK.now()) == [PROVIDER]

    return providers


def _census(db: Database) -> Work:
    async def census() -> None:
        async with db.begin() as tx:
            await census_store.count(tx)

    return census


def _take(db: Database) -> Work:
    async def take() -> Undo:
        now = _CLOCK.now()
        postponed_to = now + timedelta(minutes=2)
        taken = await due_store.take(
            db.statements, PROVIDER, cutoff=now, tick_started=now, since=None,
            postpone_to=postponed_to, limit=_TAKEN,
        )  # fmt: skip
        assert len(taken) == _TAKEN

        async def put_back() -> None:
            async with db.begin() as tx:
                assert len(await due_store.put_back(tx, taken, postponed_to=postponed_to)) == _TAKEN

        return put_back

    return take


def measure(sizes: Sequence[int], *, samples: int) -> list[Times]:
    with postgres() as (url, folder):
        databases = [seeded(url, size) for size in sizes]
        providers = write_providers(folder / "providers", "http://127.0.0.1:1")
        brokers = [Replicas(made.url, providers, _folder(folder, made)) for made in databases]
        try:
            urls = [broker.start().url for broker in brokers]
            fetched = asyncio.run(fetches(databases, urls, samples=samples))
        finally:
            for broker in brokers:
                broker.stop()
        return [fetched, *asyncio.run(searches(databases, samples=max(samples // 4, 10)))]


def _folder(folder: Path, made: Seeded) -> Path:
    own = folder / str(made.grants)
    own.mkdir()
    return own


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description="More grants, the same cost?")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--samples", type=int, default=2000)
    given = parser.parse_args()
    measured = measure(given.sizes, samples=given.samples)
    say(keep("sizes", {times.name: summed_up(times.by_size) for times in measured}))


if __name__ == "__main__":
    main()
