"""A fault each: a world under load, what is done to it, and what it cost. `python -m tests.faults` runs all of them.

Every scenario has users of its own, so that several can share a world. With one seed it takes the same decisions;
what processes make of them is up to the machine.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence

from tests.faults.evidence import NO_ANSWER, Allowed, Answer, GrantRow
from tests.faults.invariants import Violation
from tests.faults.replica import LEASE_SECONDS, Replica
from tests.faults.supervisor import World
from tests.faults.trial import NOTHING, Outcome, Size, Trial


async def postgres_killed(
    world: World, seed: int, size: Size, *, down: tuple[float, float] = (0.1, 1.5)
) -> Outcome:
    """kill -9 of PostgreSQL and all its children, `down` seconds without it, and recovery; under continuous refreshes."""
    trial = await Trial.of("postgres killed" if down[1] < 8 else "postgres away", world, seed, size)
    async with trial.under_load():
        for number in range(size.faults):
            world.postgres.crash()
            await trial.rest(*down)
            await world.postgres.start()
            await trial.rest()
            await trial.rotations(size.rotations * (number + 1) // size.faults)
    return await trial.end(crashes=size.faults)


async def postgres_paused(
    world: World, seed: int, size: Size, *, hangs: tuple[float, float] = (1.0, 2.0)
) -> Outcome:
    """SIGSTOP of all of PostgreSQL: connections stay open, and nobody answers."""
    trial = await Trial.of("postgres paused" if hangs[1] < 8 else "postgres hangs", world, seed, size)
    async with trial.under_load():
        for _ in range(size.faults):
            world.postgres.pause()
            await trial.rest(*hangs)
            world.postgres.resume()
            await trial.rest()
    return await trial.end(crashes=size.faults)


async def rolling_restart(world: World, seed: int, size: Size) -> Outcome:
    """SIGTERM to one replica after the other, under load; each ends by itself, with 0, before it is started again."""
    trial = await Trial.of("rolling restart", world, seed, size)
    async with trial.under_load():
        for number in range(size.faults):
            replica = world.replicas[number % len(world.replicas)]
            await world.end(replica)
            await replica.start()
    answers = list(trial.load.answers)
    failed = [answer for answer in answers if answer.status not in (200, NO_ANSWER)]
    figure = (
        f"{len(answers)} requests, {len(failed)} told to come back, "
        f"{sum(answer.status == NO_ANSWER for answer in answers)} met a replica that was down"
    )
    evidence = await trial.evidence(NOTHING)
    more = [Violation("who_comes_back_is_served", each) for each in in_vain(trial.load.answers, failed)]
    return trial.outcome(evidence, crashes=size.faults, more=more, figures=[figure])


def in_vain(answers: Sequence[Answer], failed: Sequence[Answer]) -> Iterator[str]:
    """Of those who were told to come back, whoever did when he was told to and was not given a token."""
    by_user: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_user[answer.user].append(answer)
    for answer in failed:
        told = answer.answered_at + (answer.retry_after or 0)
        later = [each for each in by_user[answer.user] if each.asked_at >= told and each.status != NO_ANSWER]
        again = min(later, key=lambda each: each.asked_at, default=None)
        if again is None or again.status != 200:
            how = "nobody came back" if again is None else f"{again.status} {again.code}"
            yield f"{answer.user}: {answer.status} {answer.code}, and then {how}"


async def replica_killed(world: World, seed: int, size: Size) -> Outcome:
    """kill -9 of a replica while refreshes of its are in flight. What no provider's grace saves is those."""
    trial = await Trial.of(f"replica killed {world.rotation}", world, seed, size)
    in_flight = 0
    async with trial.under_load():
        for _ in range(size.faults):
            victim = trial.random.choice(world.replicas)
            await _has_claims(world, trial, victim)
            victim.process.kill()
            in_flight += len(await _claims(world, trial, victim))
            await victim.start()
            await trial.rest()
    allowed = in_flight if world.rotation == "strict" else 0
    return await trial.end(crashes=size.faults, allowed=Allowed(losses=allowed, reuse=allowed))


async def replica_paused(
    world: World, seed: int, size: Size, *, seconds: float = LEASE_SECONDS + 2, long: bool = False
) -> Outcome:
    """SIGSTOP of a replica in mid-refresh until its leases are over, while the others go on; then it awakes."""
    trial = await Trial.of(f"replica paused{' long' if long else ''} {world.rotation}", world, seed, size)
    claims: list[GrantRow] = []
    async with trial.under_load():
        for _ in range(size.faults):
            if long:  # the hold, which lasts while the token lives, has to outlast the pause
                await trial.renewed()
            victim = trial.random.choice(world.replicas)
            claims += await _paused_in_mid_refresh(world, trial, victim)
            await asyncio.sleep(seconds)
            victim.process.resume()
            await trial.rest()
    soonest = min(row.takeover_in or 0 for row in claims)
    figure = (
        f"{len(claims)} refreshes in flight at {size.faults} pauses of {seconds:g} s; "
        f"takeover after {soonest:.0f} s at the soonest"
    )
    return await trial.end(crashes=size.faults, allowed=Allowed(pauses=True), figures=[figure])


async def all_killed(world: World, seed: int, size: Size) -> Outcome:
    """kill -9 of everything of ours at once, as when the machine's power fails."""
    trial = await Trial.of(f"all killed {world.rotation}", world, seed, size)
    in_flight = 0
    async with trial.under_load():
        for _ in range(size.faults):
            await _has_claims(world, trial, world.replicas[0])
            for replica in world.replicas:
                replica.process.kill()
            world.postgres.crash()
            await world.postgres.start()
            in_flight += sum([len(await _claims(world, trial, replica)) for replica in world.replicas])
            await asyncio.gather(*(replica.start() for replica in world.replicas))
            await trial.rest()
    allowed = in_flight if world.rotation == "strict" else 0
    return await trial.end(crashes=size.faults, allowed=Allowed(losses=allowed, reuse=allowed))


async def listener_killed(world: World, seed: int, size: Size) -> Outcome:
    """The listening connections are ended, again and again: waiters are late, and nothing else happens."""
    trial = await Trial.of("listener killed", world, seed, size, forced=0.5)
    async with trial.under_load():
        for _ in range(size.faults * 2):
            await world.postgres.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                " AND backend_type = 'client backend' AND query ~ '^(LISTEN|SELECT 1$)'"
            )
            await trial.rest()
    return await trial.end(crashes=size.faults * 2)


async def deletions(world: World, seed: int, size: Size) -> Outcome:
    """Grants are deleted under load, and users withdraw their consent, while PostgreSQL is killed."""
    trial = await Trial.of("deletions", world, seed, size)
    deleted = trial.load.users[:: size.grants // 4 or 1]
    async with trial.under_load():
        deleting = [asyncio.create_task(trial.load.delete(user)) for user in deleted]
        world.postgres.crash()
        await trial.rest(0.1, 0.3)
        await world.postgres.start()
        await world.withdraw(trial.load.users[1])
        await asyncio.gather(*deleting)
        await trial.rest(3.0, 3.5)  # long enough to see a token come back
        await _revocations_done(world)
    return await trial.end(crashes=1)


async def _paused_in_mid_refresh(world: World, trial: Trial, replica: Replica) -> list[GrantRow]:
    """Stops it; the grants whose claims it holds from now on."""
    while True:
        await _has_claims(world, trial, replica)
        replica.process.pause()
        if claims := await _claims(world, trial, replica):
            return claims
        replica.process.resume()


async def _has_claims(world: World, trial: Trial, replica: Replica) -> None:
    """Until refreshes of this replica are in flight."""
    async with asyncio.timeout(20):
        while not await _claims(world, trial, replica):
            await asyncio.sleep(0.005)


async def _claims(world: World, trial: Trial, replica: Replica) -> list[GrantRow]:
    """The grants that it holds a claim on."""
    rows = await world.grants(trial.load.users)
    return [row for row in rows if row.attempt_id is not None and replica.owns(row.owner)]


async def _revocations_done(world: World) -> None:
    """Until the provider has been told of every deletion; what failed at first is tried again each half a minute."""
    async with asyncio.timeout(90):
        while await world.postgres.query("SELECT 1 FROM revocations LIMIT 1"):
            await asyncio.sleep(0.2)
