"""Moments that load meets by chance only, brought about on purpose, in seconds. For each there is a build that fails in it:
see `sabotages`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp

from app.sandbox.faults import Faults
from tests.faults.answered import FORGOTTEN_WITHIN
from tests.faults.evidence import Allowed, Answer
from tests.faults.invariants import REVOKED_WITHIN
from tests.faults.supervisor import World
from tests.faults.trial import Outcome, Size, Trial

BRIEF_TTL = 3.0  # seconds that tokens live where they are to end
LONG_TTL = 600
SLOW = 2.0  # seconds that a provider takes, so that there is time to do something meanwhile
_MOMENT = 0.1


async def all_well(world: World, seed: int, size: Size, *, seconds: float = 3.0) -> Outcome:
    """Nothing is done to anybody."""
    trial = await Trial.of("all well", world, seed, size)
    async with trial.under_load():
        await asyncio.sleep(seconds)
    return await trial.end(crashes=0)


async def changed_elsewhere(world: World, seed: int, size: Size) -> Outcome:
    """What every replica remembers is refreshed, or deleted, at one of them."""
    trial = await _with_valid_tokens("changed elsewhere", world, seed, size)
    refreshed, deleted = trial.load.users[::2], trial.load.users[1::2]
    async with trial.watch.watching(), trial.load.session() as http:
        await _everywhere(trial, http, trial.load.users)
        await asyncio.gather(trial.load.refresh_all(http, refreshed), *map(trial.load.delete, deleted))
        await asyncio.sleep(REVOKED_WITHIN + _MOMENT)
        await _everywhere(trial, http, deleted)
        await asyncio.sleep(FORGOTTEN_WITHIN - REVOKED_WITHIN)
        await _everywhere(trial, http, refreshed)
    return await trial.end(crashes=0)


async def deleted_in_mid_refresh(world: World, seed: int, size: Size) -> Outcome:
    """Grants are deleted while the provider has made out new tokens for them and has not answered yet."""
    trial = await Trial.of("deleted in mid-refresh", world, seed, size)
    async with trial.watch.watching(), trial.load.session() as http:
        asking = asyncio.create_task(trial.load.fetch_all(http, trial.load.users))
        await _at_provider(world, size.grants)
        await asyncio.gather(*map(trial.load.delete, trial.load.users))
        await asking
        await asyncio.sleep(REVOKED_WITHIN + _MOMENT)
        await _everywhere(trial, http, trial.load.users)
    return await trial.end(crashes=0)


async def reconnected_in_mid_refresh(world: World, seed: int, size: Size) -> Outcome:
    """Users withdraw their consent, and connect anew while the provider refuses a refresh with the old tokens."""
    trial = await _with_valid_tokens("reconnected in mid-refresh", world, seed, size)
    async with trial.watch.watching(), trial.load.session() as http:
        await trial.load.fetch_all(http, trial.load.users)
        await asyncio.gather(*map(world.authorization_server.revoke, trial.load.users))
        asking = asyncio.create_task(trial.load.refresh_all(http, trial.load.users))
        await _at_provider(world, size.grants)
        await _connect_valid(trial, size)
        await trial.load.fetch_all(http, trial.load.users)
        await asking
    return await trial.end(crashes=0)


async def answer_lost(
    world: World, seed: int, size: Size, *, fault: Mapping[str, Any], after: bool = True
) -> Outcome:
    """The first refresh of each grant meets a fault; callers ask on, and a strict provider is not asked again for now."""
    trial = await Trial.of("answer lost", world, seed, size)
    wanted = [{**fault, "user": user, "after_processing": after} for user in trial.load.users]
    await world.authorization_server.control(faults=wanted)
    async with trial.under_load():
        await asyncio.sleep(3)
    is_spent = after and world.rotation == "strict"
    if not is_spent:
        return await trial.end(crashes=size.grants)
    # Only a takeover, half a minute later, would tell; so nobody waits for it here.
    allowed = Allowed(losses=size.grants)
    evidence = await world.evidence(trial.load, unsettled=frozenset(), allowed=allowed)
    return trial.outcome(evidence, crashes=size.grants)


async def ends_unrenewed(world: World, seed: int, size: Size) -> Outcome:
    """Tokens end while the provider refuses to be asked."""
    trial = await Trial.of("ends unrenewed", world, seed, size)
    refusal = {"kind": "status", "status": 503, "times": Faults.UNTIL_CLEARED}
    async with trial.watch.watching(), trial.load.session() as http:
        await trial.load.fetch_all(http, trial.load.users)
        await world.authorization_server.control(faults=[refusal])
        await asyncio.sleep(BRIEF_TTL + _MOMENT)
        await trial.load.fetch_all(http, trial.load.users)
        await world.authorization_server.control(clear_faults=True)
    return await trial.end(crashes=1)


async def ended_in_mid_refresh(world: World, seed: int, size: Size) -> Outcome:
    """SIGTERM to replicas whose refreshes nobody waits for: who asked had no time."""
    trial = await Trial.of("ended in mid-refresh", world, seed, size)
    async with trial.watch.watching(), trial.load.session() as http:
        for number, user in enumerate(trial.load.users):
            url = f"{world.urls[number % len(world.urls)]}/tokens/{world.provider}/{user}"
            async with http.get(url, params={"wait": "0"}) as answer:
                assert answer.status == 504, await answer.text()
        await _at_provider(world, size.grants)
        await asyncio.gather(*map(world.end, world.replicas))
        await asyncio.gather(*(replica.start() for replica in world.replicas))
    return await trial.end(crashes=len(world.replicas))


async def killed_with_answers(world: World, seed: int, size: Size) -> Outcome:
    """PostgreSQL is away when the provider answers, and then the replicas are killed: all there is lies in journals."""
    trial = await Trial.of("killed with answers", world, seed, size)
    async with trial.watch.watching(), trial.load.session() as http:
        asking = asyncio.create_task(trial.load.fetch_all(http, trial.load.users))
        await _at_provider(world, size.grants)
        world.postgres.crash()
        await _until(lambda: sum(world.journals.outstanding().values()) >= size.grants, seconds=2 * SLOW)
        for replica in world.replicas:
            replica.process.kill()
        await world.postgres.start()
        await asyncio.gather(*(replica.start() for replica in world.replicas))
        await asking
    return await trial.end(crashes=1 + len(world.replicas))


async def _with_valid_tokens(name: str, world: World, seed: int, size: Size) -> Trial:
    trial = await Trial.of(name, world, seed, Size(0, size.faults, settle=size.settle))
    trial.load.add(await _connect_valid(trial, size))
    return trial


async def _connect_valid(trial: Trial, size: Size) -> list[str]:
    """The users' grants, whose tokens have long to live; connected anew where they are connected already."""
    prefix = f"{trial.name.replace(' ', '-')}-{trial.seed}"
    return await trial.world.connect(size.grants, prefix=prefix, expires_in=LONG_TTL)


async def _everywhere(trial: Trial, http: aiohttp.ClientSession, users: Sequence[str]) -> list[Answer]:
    """Asks every replica for the token of each of `users`: they are asked in turn."""
    return await trial.load.fetch_all(http, [user for user in users for _ in trial.world.replicas])


async def _at_provider(world: World, count: int) -> None:
    """Until so many refreshes are in the provider's hands. Raises TimeoutError."""
    async with asyncio.timeout(SLOW + 8):
        while (await world.authorization_server.control())["hits"].get("token", 0) < count:
            await asyncio.sleep(0.02)


async def _until(holds: Callable[[], bool], *, seconds: float) -> None:
    """Or until the time for it is over: what comes of that is to be judged by the evidence."""
    for _ in range(round(seconds / 0.05)):
        if holds():
            return
        await asyncio.sleep(0.05)
