"""When nothing goes on by itself any more: every refresh is held at the provider, is stopped, waits for another, or is over."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from tests.faults.protocol.gate import Held
from tests.faults.protocol.replica import Replica
from tests.faults.protocol.steps import Resting, Steps

PATIENCE_SECONDS = 10.0
_LOOK_EVERY_SECONDS = 0.01
_WAITERS_LOOK_WITHIN_SECONDS = 0.03  # at a claim that somebody has let go of


@dataclass(eq=False)
class Work:
    """What a replica was asked to do, by somebody about a user or by its timetable."""

    replica: Replica
    task: asyncio.Task[Any]
    since: float  # by the loop's clock
    user: str | None
    puts: bool


class Rest:
    """What is under way. `held` are the requests at the provider, `steps` those of each running replica."""

    def __init__(self) -> None:
        self.held: list[Held] = []
        self.steps: dict[Replica, Steps] = {}
        self._works: list[Work] = []
        self._stirred = asyncio.Event()

    @property
    def stopped(self) -> list[Resting]:
        """Refreshes that are stopped at a point of the protocol."""
        return [each for steps in self.steps.values() for each in steps.resting if each.point is not None]

    def stir(self, _: object = None) -> None:
        """Something came to rest, or to its end."""
        self._stirred.set()

    async def begin(
        self,
        replica: Replica,
        work: Coroutine[Any, Any, None],
        *,
        user: str | None = None,
        puts: bool = False,
    ) -> None:
        """Returns once all has come to rest."""
        since = asyncio.get_running_loop().time()
        self._works.append(Work(replica, replica.within(work), since, user, puts))
        await self.come()

    async def stop_putting(self, user: str) -> None:
        """Whoever waits to connect the user again gives up."""
        for work in self._works:
            if work.user == user and work.puts:
                work.task.cancel()
        await self.come()

    def forget(self) -> None:
        """For another example."""
        self.held.clear()
        self.steps.clear()
        self._works.clear()

    async def come(self) -> None:
        """To rest. Raises AssertionError where that takes too long, and what nobody had foreseen."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS
        while restless := [task for task in self._under_way() if not self._rests(task)]:
            assert loop.time() < deadline, f"does not come to rest: {restless}"
            await self._stir_of(restless)
        over = [work for work in self._works if work.task.done()]
        self._works = [work for work in self._works if work not in over]
        for work in over:
            if not work.task.cancelled():
                work.task.result()

    def users_of(self, replica: Replica) -> list[str]:
        """Those one of whose refreshes rests there."""
        held = {each.sending.user for each in self.held if each.sending.replica == replica.name}
        return sorted(held | {each.user for each in self.stopped if each.replica is replica})

    def is_busy(self, replica: Replica) -> bool:
        """Whether it has a refresh that rests, or an answer that is not committed."""
        return self._is_stopped(replica, None) or bool(replica.services.safekeeping._pending)

    async def _stir_of(self, tasks: list[asyncio.Task[Any]]) -> None:
        self._stirred.clear()
        for task in tasks:
            task.add_done_callback(self.stir)
        try:
            async with asyncio.timeout(_LOOK_EVERY_SECONDS):
                await self._stirred.wait()
        except TimeoutError:
            pass
        for task in tasks:
            task.remove_done_callback(self.stir)

    def _under_way(self) -> list[asyncio.Task[Any]]:
        flights = [task for steps in self.steps.values() for task in steps.flights()]
        return [task for task in [*flights, *(work.task for work in self._works)] if not task.done()]

    def _rests(self, task: asyncio.Task[Any]) -> bool:
        """Whether it waits for something that only a rule can bring about."""
        if any(held.task is task and not held.ending.done() for held in self.held):
            return True
        for resting in [resting for steps in self.steps.values() for resting in steps.resting]:
            if resting.task is task:
                return resting.point is not None or self._waits_in_vain(resting)
        return any(work.task is task and self._is_flying(work) for work in self._works)

    def _is_flying(self, work: Work) -> bool:
        """Whether it depends on a refresh that rests. Whoever joined one does; of a job that is to be seen."""
        steps = self.steps[work.replica]
        if work.user is None:
            if asyncio.get_running_loop().time() - work.since < _WAITERS_LOOK_WITHIN_SECONDS:
                return False
        elif work.task not in steps.joined:
            return False
        waiting = [each for each in steps.resting if each.point is None and work.user in (None, each.user)]
        return self._is_stopped(work.replica, work.user) or any(map(self._waits_in_vain, waiting))

    def _waits_in_vain(self, waiting: Resting) -> bool:
        """Whoever holds the claim is resting too, or is no more."""
        if any(self._is_stopped(replica, waiting.user) for replica in self.steps):
            return True
        return asyncio.get_running_loop().time() - waiting.since > _WAITERS_LOOK_WITHIN_SECONDS

    def _is_stopped(self, replica: Replica, user: str | None) -> bool:
        at_provider = (
            each.sending.replica == replica.name
            and user in (None, each.sending.user)
            and not each.ending.done()
            for each in self.held
        )
        stopped = (each.replica is replica and user in (None, each.user) for each in self.stopped)
        return any(at_provider) or any(stopped)
