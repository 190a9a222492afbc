"""The primary is lost under load, and its synchronous standby takes over: no grant may be lost on the way.

Each scenario makes a world to its own needs; what a failover cost is told in seconds without a single refresh.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise

from tests.faults.standby import Pair
from tests.faults.supervisor import World
from tests.faults.trial import Outcome, Size, Trial

_READ_TOO_EARLY = {"a_refused_token_is_not_answered_again", "a_replaced_token_is_forgotten"}


@dataclass(frozen=True)
class Failing:
    """A pair under load. `losses`: when each primary was lost, or could not commit any more."""

    pair: Pair
    trial: Trial
    size: Size
    losses: list[float] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def under_load(cls, name: str, seed: int, size: Size) -> AsyncIterator[Failing]:
        async with World.running(storage=Pair, delay=0.1) as world:
            assert isinstance(world.postgres, Pair)
            yield cls(world.postgres, await Trial.of(name, world, seed, size), size)

    async def losing(self) -> AsyncIterator[int]:
        """The number of each failover, with a primary and a standby that are well; the loss is then the caller's to bring about."""
        for number in range(self.size.faults):
            if number:
                await self.pair.replace()
            await self.trial.rest(1.0, 2.0)
            self.losses.append(time.time())
            yield number
        await self.trial.rest(2.0, 3.0)

    async def end(self, *, crashes: int) -> Outcome:
        longest = ", ".join(f"{seconds:.1f}" for seconds in self._without_service())
        return await self.trial.end(crashes=crashes, figures=[f"seconds without a refresh: {longest}"])

    def _without_service(self) -> list[float]:
        """For each loss the longest time in which no refresh succeeded."""
        refreshed = sorted(
            answer.answered_at
            for answer in self.trial.load.answers
            if answer.kind == "refresh" and answer.has_token and answer.degraded != "database_unavailable"
        )
        longest = []
        for loss, next_loss in pairwise([*self.losses, time.time()]):
            times = [loss, *(at for at in refreshed if loss < at < next_loss)]
            longest.append(
                max((later - earlier for earlier, later in pairwise(times)), default=next_loss - loss)
            )
        return longest


async def primary_killed(seed: int, size: Size) -> Outcome:
    """kill -9 of the primary and all its children; the standby is promoted, and gets a standby of its own.

    Every other time the standby has been cut off just before, so that what was answered without it would be missing.
    """
    async with Failing.under_load("failover", seed, size) as failing:
        async with failing.trial.under_load():
            async for number in failing.losing():
                if number % 2 == 0:
                    await failing.pair.cut_off()
                    await failing.trial.rest(0.5, 1.0)
                failing.pair.primary.crash()
                await failing.trial.rest(0.0, 1.0)
                await failing.pair.promote()
                await failing.trial.rest(2.0, 3.0)
        return await failing.end(crashes=size.faults)


async def primary_paused(seed: int, size: Size) -> Outcome:
    """SIGSTOP of the primary; the standby is promoted; then the old one wakes up, knows of nothing, and is fenced late.

    It can read, and it cannot commit: its standby is gone.
    """
    async with Failing.under_load("failover paused", seed, size) as failing:
        async with failing.trial.under_load():
            async for _ in failing.losing():
                failing.pair.primary.pause()
                await failing.trial.rest(0.0, 1.0)
                await failing.pair.promote()
                await failing.trial.rest(9.0, 11.0)
                failing.pair.standby.resume()
                await failing.trial.rest(4.0, 5.0)
                failing.pair.standby.abandon()
        return await failing.end(crashes=size.faults)


async def standby_first(seed: int, size: Size) -> Outcome:
    """The standby is gone, so that no commit is answered, and is given up in the end; then the primary goes for good.

    The standby that is promoted has nothing of what was given up, until it comes out of the journals again. Callers may have
    read it at the old primary meanwhile, so what breaks for them is a figure and no violation.
    """
    failovers = max(1, size.faults // 2)
    async with Failing.under_load(
        "failover late", seed, Size(size.grants, failovers, size.callers)
    ) as failing:
        async with failing.trial.under_load():
            async for _ in failing.losing():
                failing.pair.standby.crash()
                await failing.trial.rest(24.0, 28.0)
                failing.pair.primary.crash()
                await failing.pair.standby.start()
                await failing.pair.promote()
                await failing.trial.rest(2.0, 3.0)
        outcome = await failing.end(crashes=2 * failovers)
    early = [found for found in outcome.violations if found.invariant in _READ_TOO_EARLY]
    return replace(
        outcome,
        violations=[found for found in outcome.violations if found not in early],
        figures=[*outcome.figures, f"answers that were taken back: {len(early)}"],
    )
