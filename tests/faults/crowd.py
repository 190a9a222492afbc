"""Many callers, over all replicas, want one token at the same moment: what that costs where it has just expired."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import aiohttp

from tests.faults.evidence import NO_ANSWER, Answer
from tests.faults.invariants import Violation
from tests.faults.supervisor import World
from tests.faults.trial import NOTHING, SHORT, Outcome, Size, Trial

LATENCIES = (0.5, 1.0)  # seconds that the provider takes
ROUNDS = 5  # each with a grant of its own
CACHED_BURSTS = 3  # of the same callers in each round, with the token at hand
PROMISED_RATIO = 1.5


@dataclass(frozen=True)
class _Round:
    latency: float
    expired: float
    cached: float

    @property
    def ratio(self) -> float:
        """How long callers waited for us, with a refresh and without."""
        return (self.expired - self.latency) / self.cached


async def thousand_callers(world: World, seed: int, size: Size) -> Outcome:
    """The provider is asked once for each expired token, however many want it. The long form takes the time as well."""
    long = size.grants > SHORT.grants
    callers, latencies, rounds = (1000, LATENCIES, ROUNDS) if long else (400, LATENCIES[:1], 1)
    trial = await Trial.of("thousand callers", world, seed, Size(1 + rounds * len(latencies), 0))
    first, *users = trial.load.users
    answers, measured = [], []
    # No connection is made anew between two bursts.
    async with trial.watch.watching(), trial.load.session(idle_seconds=15) as http:
        if long:
            for _ in range(2):  # until connections are made, and code is warm
                answers += (await _burst(trial, http, first, callers))[0]
        for number, user in enumerate(users):
            latency = latencies[number // rounds]
            await world.authorization_server.control(settings={"delay": latency})
            found, expired = await _burst(trial, http, user, callers)
            answers += found
            if long:
                bursts = [await _burst(trial, http, user, callers) for _ in range(CACHED_BURSTS)]
                answers += [answer for again, _ in bursts for answer in again]
                measured.append(_Round(latency, expired, median(seconds for _, seconds in bursts)))
    more = [*await _asked_too_often(world, {answer.user for answer in answers}), *_unanswered(answers)]
    more += [found for latency in latencies for found in _slow(latency, measured)]
    evidence = await trial.evidence(NOTHING, settle=20)
    figures = [figure for latency in latencies for figure in _figures(latency, measured)]
    return trial.outcome(evidence, crashes=0, more=more, figures=figures)


async def _burst(
    trial: Trial, http: aiohttp.ClientSession, user: str, callers: int
) -> tuple[list[Answer], float]:
    """The answers, and the seconds until the last of them."""
    began = time.perf_counter()
    answers = await trial.load.fetch_all(http, [user] * callers)
    return answers, time.perf_counter() - began


async def _asked_too_often(world: World, users: set[str]) -> list[Violation]:
    asked = (await world.authorization_server.control())["hits"].get("token", 0)
    if asked == len(users):
        return []
    return [Violation("one_call_for_all_callers", f"{asked} calls for {len(users)} tokens")]


def _unanswered(answers: Sequence[Answer]) -> list[Violation]:
    failed = [answer for answer in answers if answer.status != 200]
    if not failed:
        return []
    unanswered = sum(answer.status == NO_ANSWER for answer in failed)
    return [Violation("all_callers_are_answered", f"{len(failed)} were not, {unanswered} at all")]


def _slow(latency: float, measured: Sequence[_Round]) -> list[Violation]:
    """By the median, since the callers' own processor time is most of a burst's, and other work comes in between."""
    ratios = [each.ratio for each in measured if each.latency == latency]
    if not ratios or median(ratios) <= PROMISED_RATIO:
        return []
    return [Violation("a_burst_waits_for_the_provider_only", f"{median(ratios):.2f} times a cached burst")]


def _figures(latency: float, measured: Sequence[_Round]) -> list[str]:
    rounds = [each for each in measured if each.latency == latency]
    if not rounds:
        return []
    ratios = sorted(each.ratio for each in rounds)
    cached, expired = (median(getattr(each, name) for each in rounds) for name in ("cached", "expired"))
    return [
        f"provider {latency:g} s: a burst takes {cached:.2f} s cached and {expired:.2f} s expired; "
        + f"(expired - latency) / cached is {median(ratios):.2f}, in {len(rounds)} rounds "
        + f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    ]
