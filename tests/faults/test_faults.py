"""The short form: what holds today, within a minute. `python -m tests.faults` is the long one.

Starting a world costs more than most faults, so scenarios share one; and worlds run side by side, since where a lease
has to end most of it is waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from tests.faults import crowd, hung, scenarios, upstream
from tests.faults.processes import is_alive, until
from tests.faults.replica import DEFAULT_LIMITS
from tests.faults.supervisor import World
from tests.faults.trial import NOTHING, SHORT, Outcome, Size, Trial

SEED = 1
ONCE = Size(8, 1, callers=3)
DEADLINE_SECONDS = 110.0
STRICT: Sequence[Callable[[World, int, Size], Awaitable[Outcome]]] = (
    crowd.thousand_callers,
    scenarios.listener_killed,
    scenarios.postgres_killed,
    partial(scenarios.postgres_paused, hangs=(0.4, 0.7)),
    scenarios.deletions,
    scenarios.rolling_restart,
)


async def test_no_fault_that_can_be_survived_costs_a_grant_or_a_promise() -> None:
    async with asyncio.timeout(DEADLINE_SECONDS), asyncio.TaskGroup() as tasks:
        for part in (_every_refresh_spends_its_token, _killed_in_mid_refresh, _stopped_past_the_lease):
            tasks.create_task(part())


async def test_more_refreshes_that_hang_than_there_are_connections_hold_up_nobody_else() -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        async with World.running(
            rotation="graced", replicas=1, access_ttl=3600, settings=DEFAULT_LIMITS
        ) as world:
            _require_harmless(await hung.refreshes_hang(world, SEED, ONCE))


async def _every_refresh_spends_its_token() -> None:
    """Three replicas at a provider that revokes everything upon reuse; and nothing of it is left running."""
    async with World.running(rotation="strict", replicas=3) as world:
        for run in STRICT:
            _require_harmless(await run(world, SEED, replace(SHORT, faults=1)))
        await _a_secret_death_is_found(world)
        pids = world.pids()
    assert len(pids) > 10
    await until(lambda: not any(map(is_alive, pids)), seconds=5, what="nothing is left running")
    assert not world.folder.exists()


async def _killed_in_mid_refresh() -> None:
    """After a provider's answers were lost in every way there is. The grace period saves all of them."""
    async with World.running(rotation="graced", delay=0.2, settings=upstream.SETTINGS) as world:
        for outcome in await upstream.after_processing(world, SEED, ONCE):
            _require_harmless(outcome)
        _require_harmless(await scenarios.replica_killed(world, SEED, ONCE))


async def _stopped_past_the_lease() -> None:
    async with World.running(rotation="graced", delay=0.2) as world:
        _require_harmless(await scenarios.replica_paused(world, SEED, ONCE))


async def _a_secret_death_is_found(world: World) -> None:
    """The suite itself: what the provider took away without anybody's knowing counts as lost."""
    trial = await Trial.of("found", world, SEED, Size(2, 0))
    await world.authorization_server.revoke(trial.load.users[0])
    outcome = trial.outcome(await trial.evidence(NOTHING, settle=20), crashes=0)
    assert outcome.lost == 1
    assert [found.invariant for found in outcome.violations] == ["no_grant_is_lost"]


def _require_harmless(outcome: Outcome) -> None:
    found = [f"{each.invariant}: {each.detail}" for each in outcome.violations]
    assert not found, "\n".join([outcome.scenario, *found])
    assert outcome.rotations > 0
    assert outcome.lost == 0
