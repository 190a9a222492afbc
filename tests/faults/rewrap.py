"""`broker rotate-keys` over many grants while callers read them: nobody is refused, and what it costs them."""

from __future__ import annotations

import asyncio
import random
import re
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from tests.broker import ADMIN_KEY
from tests.faults.backlog import Site
from tests.faults.invariants import Violation
from tests.faults.processes import REPOSITORY
from tests.faults.trial import SHORT, Outcome, Size

GRANTS, GRANTS_IN_SHORT = 100_000, 1_000
CALLERS = 4
BEFORE_SECONDS = 15.0
DEADLINE_SECONDS = 600.0
_DONE = re.compile(r"([\d,]+) rows sealed anew in ([\d.]+) s")
# Nothing is refreshed meanwhile: what is read is read because of the rewrap, or in spite of it.
_AT_REST = "UPDATE grants SET next_refresh_at = NULL, expires_at = clock_timestamp() + interval '1 day'"


@dataclass
class Reads:
    """When each began and how many seconds it took, and those that were not answered with the right token."""

    taken: list[tuple[float, float]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    degraded: int = 0  # answered with what was remembered, since PostgreSQL took over half a second

    def between(self, begin: float, end: float) -> list[float]:
        """Milliseconds, sorted."""
        return sorted(1000 * took for at, took in self.taken if begin <= at < end)

    @asynccontextmanager
    async def going_on(self, site: Site, users: Sequence[tuple[str, str]], seed: int) -> AsyncIterator[None]:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            chance = random.Random(seed)
            tasks = [asyncio.create_task(self._read(site, http, users, chance)) for _ in range(CALLERS)]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(
        self, site: Site, http: aiohttp.ClientSession, users: Sequence[tuple[str, str]], chance: random.Random
    ) -> None:
        while True:
            provider, user = chance.choice(users)
            began = time.monotonic()
            async with http.get(f"{site.replica.url}/tokens/{provider}/{user}") as answer:
                body = await answer.json()
            self.taken.append((began, time.monotonic() - began))
            self.degraded += bool(body.get("degraded"))
            if body.get("access_token") != f"access-of-{user}-0":
                self.failed.append(f"{user}: {answer.status} {body.get('code')}")
            await asyncio.sleep(0.01)


async def rewrap(seed: int, size: Size) -> Outcome:
    """All of it, from the new data key to the last row."""
    grants = GRANTS if size.grants > SHORT.grants else GRANTS_IN_SHORT
    reads, began = Reads(), time.monotonic()
    async with Site.running() as site:
        users = await site.fill(grants)
        await site.postgres.query(_AT_REST)
        wanted = [(provider, user) for provider, names in users.items() for user in names]
        async with reads.going_on(site, wanted, seed):
            start = time.monotonic()
            await asyncio.sleep(BEFORE_SECONDS)
            code, said, end = await _rotate_keys(site)
        done = _DONE.search(said)
        emptied = await site.postgres.query("SELECT 1 FROM data_keys WHERE emptied_at IS NOT NULL")
    seconds = float(done[2]) if done else 0.0
    violations = [Violation("a_read_is_answered_meanwhile", each) for each in reads.failed]
    if code or done is None or int(done[1].replace(",", "")) != grants or not emptied:
        violations.append(Violation("everything_is_sealed_anew", f"{code} {said}"))
    before, meanwhile = reads.between(start, start + BEFORE_SECONDS), reads.between(end - seconds, end)
    return Outcome(
        "rewrap", seed, rotations=0, crashes=0, grants=grants, lost=0, allowed=0, violations=violations,
        seconds=time.monotonic() - began, 
        figures=[*_figures(grants / max(seconds, 0.1), before, meanwhile), f"{reads.degraded} answered degraded"],
    )  # fmt: skip


async def _rotate_keys(site: Site) -> tuple[int | None, str, float]:
    """As an operator calls it, with the replica's settings: its exit code, what it said, and when the rows were done."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.cli", "rotate-keys"),
        cwd=REPOSITORY,
        env=dict(site.replica.process.environment),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert process.stdout is not None
            said, done_at = "", 0.0
            async for line in process.stdout:
                said += line.decode()
                if not done_at and _DONE.search(said):
                    done_at = time.monotonic()
            await process.wait()
    except TimeoutError:
        process.kill()
        raise
    return process.returncode, said, done_at


def _figures(rate: float, before: Sequence[float], meanwhile: Sequence[float]) -> list[str]:
    def half(times: Sequence[float]) -> float:
        return times[len(times) // 2] if times else 0.0

    def most(times: Sequence[float]) -> float:
        return times[len(times) * 99 // 100] if times else 0.0

    slower = half(meanwhile) / half(before) if before and meanwhile else 0.0
    return [
        f"{rate:,.0f} grants a second",
        f"{len(before)} reads before: half within {half(before):.1f} ms, 99 % within {most(before):.1f} ms",
        f"{len(meanwhile)} meanwhile: half within {half(meanwhile):.1f} ms, 99 % within {most(meanwhile):.1f} ms; "
        + f"the half is {slower:.2f} times that before",
    ]
