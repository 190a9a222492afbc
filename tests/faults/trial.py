"""One scenario under way: its grants, its callers, and what it came to."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from tests.faults.evidence import Allowed, Evidence
from tests.faults.invariants import Violation, lost, violations
from tests.faults.load import Load
from tests.faults.supervisor import World
from tests.faults.watching import Watch

SETTLE_SECONDS = 75.0  # a lease, or the longest hold, and some tries


@dataclass(frozen=True)
class Size:
    """How many grants, how often the fault happens, how many callers keep asking, how many refreshes there have to be in
    all, at least, and how many seconds grants may take to settle."""

    grants: int
    faults: int
    callers: int = 12
    rotations: int = 0
    settle: float = SETTLE_SECONDS


NOTHING = Allowed()
SHORT, LONG = Size(10, 2, callers=4), Size(60, 4)


@dataclass(frozen=True)
class Outcome:
    """A row of the table. `rotations` are refreshes that the provider processed; `figures` say in words what else was
    measured."""

    scenario: str
    seed: int
    rotations: int
    crashes: int
    grants: int
    lost: int
    allowed: int
    violations: Sequence[Violation]
    seconds: float
    figures: Sequence[str] = ()


@dataclass(frozen=True)
class Trial:
    """A scenario under way."""

    name: str
    world: World
    load: Load
    seed: int
    random: random.Random
    callers: int
    watch: Watch
    settle: float
    began: float = field(default_factory=time.monotonic)

    @classmethod
    async def of(cls, name: str, world: World, seed: int, size: Size, *, forced: float = 0.8) -> Trial:
        """With grants of its own, and the provider's counters at zero."""
        await world.mend()
        await world.authorization_server.control(
            settings={"delay": world.delay}, reset_counters=True, clear_faults=True
        )
        users = await world.connect(size.grants, prefix=f"{name.replace(' ', '-')}-{seed}")
        load = world.load(users, seed=seed, forced=forced)
        return cls(name, world, load, seed, random.Random(seed), size.callers, Watch(world), size.settle)

    @asynccontextmanager
    async def under_load(self) -> AsyncIterator[None]:
        """Callers ask all the while. They are given a moment before the block and one behind it."""
        async with self.watch.watching(), self.load.running(callers=self.callers):
            await self.rest()
            yield
            await self.rest()

    async def rest(self, least: float = 0.4, most: float = 1.2) -> None:
        await asyncio.sleep(self.random.uniform(least, most))

    async def rotations(self, least: int) -> None:
        """Until the provider has processed so many refreshes."""
        while (await self.world.authorization_server.control())["refreshes"] < least:
            await asyncio.sleep(0.2)

    async def renewed(self, *, seconds: float = 60) -> None:
        """Until each grant has a newer token than now. Raises TimeoutError."""
        before = dict(self.load.generations)
        async with asyncio.timeout(seconds):
            while any(self.load.generations[user] <= known for user, known in before.items()):
                await asyncio.sleep(0.05)

    async def end(
        self,
        *,
        crashes: int,
        allowed: Allowed = NOTHING,
        settle: float | None = None,
        figures: Sequence[str] = (),
    ) -> Outcome:
        """What it came to, once every grant has been refreshed again or has been given up."""
        evidence = await self.evidence(allowed, settle=settle)
        return self.outcome(evidence, crashes=crashes, figures=figures)

    async def evidence(
        self, allowed: Allowed, *, settle: float | None = None, of: Sequence[str] | None = None
    ) -> Evidence:
        """Once every grant, or those `of` some users, have been refreshed again or have been given up."""
        users = self.load.users if of is None else of
        unsettled = await self.load.settle(users, seconds=self.settle if settle is None else settle)
        found = await self.world.evidence(self.load, unsettled=unsettled, allowed=allowed)
        return replace(found, idle_in_transaction_seconds=self.watch.idle_in_transaction_seconds)

    def outcome(
        self,
        evidence: Evidence,
        *,
        crashes: int,
        more: Sequence[Violation] = (),
        figures: Sequence[str] = (),
    ) -> Outcome:
        return Outcome(
            self.name,
            self.seed,
            evidence.upstream.refreshes,
            crashes,
            len(evidence.grants),
            len(lost(evidence)),
            evidence.allowed.losses,
            [*violations(evidence), *more],
            time.monotonic() - self.began,
            figures,
        )
