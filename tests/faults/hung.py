"""A provider that hangs: refreshes wait for it on no database connection, so who asks for other grants notices nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import quantiles

import aiohttp

from app.sandbox.faults import Faults
from tests.faults.evidence import NO_ANSWER, Answer
from tests.faults.invariants import Violation
from tests.faults.load import Load
from tests.faults.supervisor import World
from tests.faults.trial import NOTHING, SHORT, Outcome, Size, Trial

HUNG = 40  # refreshes, on a pool of 20 connections
READS, FEW_READS = 600, 60  # of each kind, in the long form and in the short one
REMEMBERED = 20  # grants that are asked for again and again
AT_ONCE = 32
TIME_OUT_SECONDS, SHORT_FORM_SECONDS = 2.0, 14.0  # a read without a connection is told to come back after 5 s
VALID_SECONDS = 3000
_MISSES = r'broker_cache_reads_total\{cache="grants",outcome="miss"\} (\S+)'


@dataclass(frozen=True)
class _Reads:
    """`misses`: how many of them had to be read from PostgreSQL."""

    what: str
    answers: Sequence[Answer]
    misses: int

    def violations(self) -> Iterator[Violation]:
        failed = [answer for answer in self.answers if answer.status != 200]
        if failed:
            late = sum(answer.status == NO_ANSWER for answer in failed)
            yield Violation(
                "reads_pass_by_what_hangs", f"{self.what}: {len(failed)} failed, {late} timed out"
            )

    @property
    def figure(self) -> str:
        took = [1000 * (answer.answered_at - answer.asked_at) for answer in self.answers]
        percentiles = quantiles(took, n=100)
        return (
            f"{self.what}: {len(took)} reads, {self.misses} of PostgreSQL, p50 {percentiles[49]:.0f} ms, "
            f"p99 {percentiles[98]:.0f} ms, {sum(answer.status != 200 for answer in self.answers)} failed"
        )


async def refreshes_hang(world: World, seed: int, size: Size) -> Outcome:
    """Forty refreshes are in flight and get no answer, while all others are asked for: remembered grants and new ones.

    Times are judged in the long form only.
    """
    trial = await Trial.of("refreshes hang", world, seed, Size(HUNG, 0))
    server, load, hung = world.authorization_server, trial.load, list(trial.load.users)
    long = size.grants > SHORT.grants
    reads_each, patience = (READS, TIME_OUT_SECONDS) if long else (FEW_READS, SHORT_FORM_SECONDS)
    others = await world.connect(
        REMEMBERED + 2 * reads_each, prefix=f"others-{seed}", expires_in=VALID_SECONDS
    )
    load.add(others)
    remembered, unread = others[:REMEMBERED], others[REMEMBERED:]
    async with trial.watch.watching(), load.session() as patient, load.session(seconds=patience) as http:
        reads = await _reads(world, load, http, "all well", remembered, unread[:reads_each])
        await server.control(faults=[{"kind": "hang", "times": Faults.UNTIL_CLEARED}])
        hanging = asyncio.create_task(load.fetch_all(patient, hung))
        assert await _all_in_flight(world), f"not {HUNG} refreshes in flight"
        reads += await _reads(world, load, http, f"{HUNG} hang", remembered, unread[reads_each:])
        still = await _all_in_flight(world)
        await server.control(clear_faults=True)
        await hanging
    more = [found for each in reads for found in each.violations()]
    if long and not still:
        more.append(Violation("all_hang_to_the_end", f"not {HUNG} when the last read was answered"))
    figures = [each.figure for each in reads]
    figures.append(f"longest idle in a transaction {trial.watch.idle_in_transaction_seconds:.3f} s")
    evidence = await trial.evidence(NOTHING, of=hung)
    return trial.outcome(evidence, crashes=HUNG, more=more, figures=figures)


async def _reads(
    world: World,
    load: Load,
    http: aiohttp.ClientSession,
    when: str,
    remembered: Sequence[str],
    unread: Sequence[str],
) -> list[_Reads]:
    """Those of grants that are remembered, and those of grants that nobody has asked for."""
    await load.fetch_all(http, remembered)
    often = list(remembered) * (len(unread) // len(remembered))
    reads = []
    for what, users in ((f"{when}, cached", often), (f"{when}, uncached", unread)):
        before = await _misses(world)
        answers = await load.fetch_all(http, users, at_once=AT_ONCE)
        reads.append(_Reads(what, answers, await _misses(world) - before))
    return reads


async def _misses(world: World) -> int:
    """How often the one replica has had to ask PostgreSQL for a grant."""
    async with aiohttp.ClientSession() as http, http.get(world.urls[0] + "/metrics") as answer:
        found = re.search(_MISSES, await answer.text())
    return int(float(found[1])) if found else 0


async def _all_in_flight(world: World) -> bool:
    """Whether all of them wait for the provider; a try that ran out of time is followed by another in a moment."""
    with suppress(TimeoutError):
        async with asyncio.timeout(8):
            while True:
                # What was reset is the most that are in flight from now on: those of this moment.
                report = await world.authorization_server.control(reset_counters=True)
                if report["max_in_flight"] == HUNG:
                    return True
                await asyncio.sleep(0.02)
    return False
