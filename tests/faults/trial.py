"""One scenario under way: its grants, its callers, and what it came to."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.faults.evidence import Allowed, Evidence
from tests.faults.invariants import Violation, lost, violations
from tests.faults.load import Load
from tests.faults.supervisor import World

LOOK_SECONDS = 2.0  # often enough that the provider forgets no access token between two looks
SETTLE_SECONDS = 75.0  # a lease, or the longest hold, and some tries


@dataclass(frozen=True)
class Size:
    """How many grants, how often the fault happens, and how many callers keep asking."""

    grants: int
    faults: int
    callers: int = 12


NOTHING = Allowed()
SHORT, LONG = Size(10, 2, callers=4), Size(60, 4)


@dataclass(frozen=True)
class Outcome:
    """A row of the table. `rotations` are refreshes that the provider processed."""

    scenario: str
    seed: int
    rotations: int
    crashes: int
    grants: int
    lost: int
    allowed: int
    violations: Sequence[Violation]
    seconds: float


@dataclass(frozen=True)
class Trial:
    """A scenario under way."""

    name: str
    world: World
    load: Load
    seed: int
    random: random.Random
    callers: int
    began: float = field(default_factory=time.monotonic)

    @classmethod
    async def of(cls, name: str, world: World, seed: int, size: Size, *, forced: float = 0.8) -> Trial:
        """With grants of its own, and the provider's counters at zero."""
        await world.mend()
        await world.authorization_server.control(reset_counters=True, clear_faults=True)
        users = await world.connect(size.grants, prefix=f"{name.replace(' ', '-')}-{seed}")
        load = world.load(users, seed=seed, forced=forced)
        return cls(name, world, load, seed, random.Random(seed), size.callers)

    @asynccontextmanager
    async def under_load(self) -> AsyncIterator[None]:
        """Callers ask all the while. They are given a moment before the block and one behind it."""
        watching = asyncio.create_task(self._look())
        try:
            async with self.load.running(callers=self.callers):
                await self.rest()
                yield
                await self.rest()
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    async def rest(self, least: float = 0.4, most: float = 1.2) -> None:
        await asyncio.sleep(self.random.uniform(least, most))

    async def end(
        self, *, crashes: int, allowed: Allowed = NOTHING, settle: float = SETTLE_SECONDS
    ) -> Outcome:
        """What it came to, once every grant has been refreshed again or has been given up."""
        evidence = await self.evidence(allowed, settle=settle)
        return self.outcome(evidence, crashes=crashes)

    async def evidence(self, allowed: Allowed, *, settle: float = SETTLE_SECONDS) -> Evidence:
        unsettled = await self.load.settle(seconds=settle)
        return await self.world.evidence(self.load, unsettled=unsettled, allowed=allowed)

    def outcome(self, evidence: Evidence, *, crashes: int, more: Sequence[Violation] = ()) -> Outcome:
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
        )

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(self.world.authorization_server.look)
