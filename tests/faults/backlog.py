"""A great backlog: far more is due than a tick can work off, at three providers, and callers ask all the while.

What must hold: each grant is refreshed once, the smallest provider does not wait for the largest, every caller is
answered, and the replica's memory does not grow with what is due.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, cast

import aiohttp

from tests.backlog import bring_due
from tests.broker import ADMIN_KEY, write_providers
from tests.faults.invariants import Violation
from tests.faults.postgres import Postgres
from tests.faults.processes import REPOSITORY, Process, own_port
from tests.faults.replica import Replica
from tests.faults.trial import SHORT, Outcome, Size
from tests.vault import loaded_vault

SHARES = {"keeps": 0.9, "sandbox": 0.09, "graced": 0.01}  # `sandbox` rotates strictly
GRANTS, SECONDS = 100_000, 7_200.0  # a fraction of that where nothing else runs
GRANTS_IN_SHORT, SECONDS_IN_SHORT = 1_000, 90.0
CALLERS = 4
FETCHED = 50  # users of each provider for whom callers ask
PROVIDER_SECONDS = 0.03
LOOK_SECONDS = 0.25
MAY_GROW_MEGABYTES = 16.0
_SETTINGS = {"REFRESH_INTERVAL_SECONDS": "60", "REFRESH_MARGIN_SECONDS": "300", "LOG_LEVEL": "WARNING"}


@dataclass
class Watch:
    """What was seen while it was worked off. Memory is the replica's resident set, in megabytes."""

    idle: float
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    memory: list[float] = field(default_factory=list)
    left: Mapping[str, int] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)  # seconds until a provider had nothing left
    fetches: list[float] = field(default_factory=list)  # seconds that each took
    unanswered: list[str] = field(default_factory=list)

    @property
    def grown(self) -> float:
        """Since a fifth of it was done: every connection and all that is remembered for a while is there by then."""
        return max(self.memory) - max(self.memory[: len(self.memory) // 5 + 1])

    def figures(self, grants: int) -> list[str]:
        ended = ", ".join(f"{name} after {seconds:.1f} s" for name, seconds in self.ended.items())
        took = sorted(1000 * seconds for seconds in self.fetches)
        half, most = took[len(took) // 2], took[len(took) * 99 // 100]
        return [
            f"{grants / self.seconds:.0f} refreshes a second; nothing was left of {ended}",
            f"resident set {self.idle:.0f} MB when idle, {max(self.memory):.0f} MB at most,"
            + f" of which {self.grown:.1f} MB came after a fifth of the work",
            f"{len(took)} fetches meanwhile: half within {half:.0f} ms, 99 % within {most:.0f} ms,"
            + f" the slowest took {took[-1]:.0f} ms",
        ]


class Site:
    """One replica, PostgreSQL, and three providers at one endpoint that keeps up with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = Postgres(folder / "postgres", log=folder / "postgres.log")
        port = own_port()
        self.provider_url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "tests.token_endpoint", "--port", f"{port}", "--delay"]
        self.provider = Process(
            [*command, f"{PROVIDER_SECONDS}"], folder / "provider.log", environment=dict(os.environ)
        )
        providers = write_providers(folder / "providers", self.provider_url)
        settings = {"DATABASE_URL": self.postgres.url, "PROVIDERS_DIR": str(providers), **_SETTINGS}
        self.replica = Replica(0, folder, settings, source=REPOSITORY)

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[Self]:
        folder = tempfile.mkdtemp(prefix="broker-backlog-")
        os.chmod(folder, 0o755)  # PostgreSQL's own user has to pass
        try:
            site = cls(Path(folder))
        except BaseException:
            shutil.rmtree(folder)
            raise
        try:
            site.postgres.create()
            site.provider.start()
            await site.postgres.start()
            await site.replica.start()
            yield site
        finally:
            site.replica.process.kill()
            site.postgres.abandon()
            site.provider.kill()
            shutil.rmtree(folder, ignore_errors=True)

    async def fill(self, grants: int) -> dict[str, list[str]]:
        """The users of each provider; their grants are due from now on."""
        vault = await loaded_vault(self.postgres.url)
        users = {
            provider: [f"{provider}-{number}" for number in range(round(grants * share))]
            for provider, share in SHARES.items()
        }
        for provider, names in users.items():
            await bring_due(self.postgres.url, vault, provider, names)
        return users

    def memory(self) -> float:
        status = Path(f"/proc/{self.replica.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    async def left(self) -> dict[str, int]:
        """How many have not been refreshed yet, by provider."""
        rows = await self.postgres.query(
            "SELECT provider, count(*) AS left FROM grants WHERE generation = 1 GROUP BY provider"
        )
        return {row["provider"]: row["left"] for row in rows}

    async def report(self) -> dict[str, int]:
        """What the provider has counted."""
        async with aiohttp.ClientSession() as http, http.get(self.provider_url) as answer:
            return cast(dict[str, int], await answer.json())


async def backlog(seed: int, size: Size) -> Outcome:
    """Worked off, in as many ticks as it takes."""
    is_long = size.grants > SHORT.grants
    grants, seconds = (GRANTS, SECONDS) if is_long else (GRANTS_IN_SHORT, SECONDS_IN_SHORT)
    async with Site.running() as site:
        watch = Watch(idle=site.memory())
        users = await site.fill(grants)
        watch.began = time.monotonic()
        await _work_off(site, watch, users, random.Random(seed), seconds)
        report = await site.report()
    return Outcome(
        "backlog",
        seed,
        rotations=report["refreshes"],
        crashes=0,
        grants=grants,
        lost=sum(watch.left.values()),
        allowed=0,
        violations=_violations(watch, report, grants),
        seconds=watch.seconds,
        figures=watch.figures(grants),
    )


async def _work_off(
    site: Site, watch: Watch, users: Mapping[str, Sequence[str]], chance: random.Random, seconds: float
) -> None:
    """Until nothing is left, or the time is over."""
    wanted = [(provider, user) for provider, names in users.items() for user in names[-FETCHED:]]
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        tasks = [asyncio.create_task(_run(site, http)), asyncio.create_task(_look(site, watch))]
        tasks += [asyncio.create_task(_fetch(site, watch, http, wanted, chance)) for _ in range(CALLERS)]
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await _until_nothing_is_left(site, watch, users)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
    watch.unanswered += [repr(error) for error in ended if isinstance(error, Exception)]


async def _until_nothing_is_left(site: Site, watch: Watch, users: Mapping[str, Sequence[str]]) -> None:
    while not watch.ended.keys() >= users.keys():
        watch.left = await site.left()
        watch.seconds = time.monotonic() - watch.began
        for provider in users.keys() - watch.left.keys():
            watch.ended.setdefault(provider, watch.seconds)
        await asyncio.sleep(LOOK_SECONDS * 2)


async def _run(site: Site, http: aiohttp.ClientSession) -> None:
    """What an operator may do; the timetable's own ticks come in between."""
    while True:
        async with http.post(f"{site.replica.url}/refresh/run", timeout=aiohttp.ClientTimeout()) as answer:
            answer.raise_for_status()
        await asyncio.sleep(1)


async def _look(site: Site, watch: Watch) -> None:
    while True:
        watch.memory.append(site.memory())
        await asyncio.sleep(LOOK_SECONDS)


async def _fetch(
    site: Site,
    watch: Watch,
    http: aiohttp.ClientSession,
    wanted: Sequence[tuple[str, str]],
    chance: random.Random,
) -> None:
    while True:
        provider, user = chance.choice(wanted)
        asked_at = time.monotonic()
        async with http.get(f"{site.replica.url}/tokens/{provider}/{user}") as answer:
            if answer.status != 200:
                watch.unanswered.append(f"{user}: {answer.status} {await answer.text()}")
        watch.fetches.append(time.monotonic() - asked_at)
        await asyncio.sleep(0.05)


def _violations(watch: Watch, report: Mapping[str, int], grants: int) -> list[Violation]:
    found = []
    if watch.left:
        found.append(Violation("a_backlog_is_worked_off", f"left: {dict(watch.left)}"))
    if report["requests"] != report["refreshes"] or report["most_of_one_user"] != 1 or report["reused"]:
        found.append(Violation("a_due_grant_is_refreshed_once", f"{report} of {grants}"))
    if list(watch.ended)[-1:] == ["graced"]:
        found.append(Violation("a_small_provider_is_not_starved", f"{watch.ended}"))
    if watch.unanswered:
        found.append(
            Violation("callers_are_answered", f"{len(watch.unanswered)}, such as {watch.unanswered[0]}")
        )
    if watch.grown > MAY_GROW_MEGABYTES:
        found.append(Violation("memory_stays_flat", f"{watch.grown:.1f} MB"))
    return found
