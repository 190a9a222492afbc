"""What a provider can do to a refresh: each fault at grants of its own, before or after the request was processed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.faults.evidence import Allowed, Evidence, Upstream
from tests.faults.invariants import lost, violations
from tests.faults.supervisor import World
from tests.faults.trial import Outcome, Size, Trial

_HTML = {"kind": "status", "content_type": "text/html", "body": "<html><h1>Maintenance</h1></html>"}
FAULTS: Mapping[str, Mapping[str, Any]] = {
    "hang": {"kind": "hang", "seconds": 6.0},
    "late": {"kind": "delay", "seconds": 4.0},
    "slow drip": {"kind": "slow_drip", "interval": 0.2},
    "reset": {"kind": "reset"},
    "drop": {"kind": "drop"},
    "truncated": {"kind": "truncate"},
    "no http": {"kind": "not_http"},
    "garbage": {"kind": "garbage"},
    "html 200": {**_HTML, "status": 200},
    "html 502": {**_HTML, "status": 502},
    "error 500": {"kind": "status", "status": 500, "body": {"error": "server_error"}},
    "busy 503": {"kind": "status", "status": 503, "headers": {"Retry-After": "1"}},
    "throttled 429": {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}},
    "5 MB": {"kind": "big"},
    "redirect": {"kind": "redirect"},
    "no token": {"kind": "no_access_token"},
    "wrong type": {"kind": "wrong_type"},
}
SETTINGS = {
    "BREAKER_FAILURES": "1000"
}  # each grant meets its own fault, not the breaker that another's opened


@dataclass(frozen=True)
class _Case:
    fault: str
    users: Sequence[str]
    allowed: int


async def before_processing(world: World, seed: int, size: Size) -> list[Outcome]:
    """The request changed nothing, so no grant may be lost of it."""
    return await _faulty(world, seed, size, after=False)


async def after_processing(world: World, seed: int, size: Size) -> list[Outcome]:
    """The refresh token is spent and the new one is lost on its way: only a provider's grace can save the grant."""
    return await _faulty(world, seed, size, after=True)


async def _faulty(world: World, seed: int, size: Size, *, after: bool) -> list[Outcome]:
    trial = await Trial.of(
        f"{'after' if after else 'before'} {world.rotation}",
        world,
        seed,
        Size(size.grants // len(FAULTS) * len(FAULTS) or len(FAULTS), 0, callers=24),
        forced=1.0,
    )
    each = len(trial.load.users) // len(FAULTS)
    allowed = each if after and world.rotation == "strict" else 0
    cases = [
        _Case(fault, trial.load.users[number * each :][:each], allowed) for number, fault in enumerate(FAULTS)
    ]
    await world.authorization_server.control(faults=_wanted(cases, after=after))
    async with trial.under_load():
        await _met(world)
    total = allowed * len(cases)
    evidence = await trial.evidence(Allowed(losses=total, reuse=total))
    return [*(_of_case(trial, evidence, case) for case in cases), trial.outcome(evidence, crashes=len(cases))]


def _wanted(cases: Sequence[_Case], *, after: bool) -> list[dict[str, Any]]:
    return [
        {**FAULTS[case.fault], "user": user, "after_processing": after}
        for case in cases
        for user in case.users
    ]


async def _met(world: World) -> None:
    """Until each fault has happened to the grant it is meant for."""
    async with asyncio.timeout(60):
        while (await world.authorization_server.control())["faults"]:
            await asyncio.sleep(0.2)


def _of_case(trial: Trial, evidence: Evidence, case: _Case) -> Outcome:
    """The fault's share of what happened; what the provider counts for all users together is in the last row."""
    users = set(case.users)
    grants = [row for row in evidence.grants if row.user in users]
    upstream: Upstream = replace(
        evidence.upstream, reuse_detected=0, unknown_refresh_tokens=0, elsewhere=0, max_in_flight_by_user={}
    )
    share = replace(
        evidence,
        answers=[answer for answer in evidence.answers if answer.user in users],
        grants=grants,
        attempts=[row for row in evidence.attempts if row.grant_id in {grant.id for grant in grants}],
        journaled=[row for row in evidence.journaled if row.grant_id in {grant.id for grant in grants}],
        upstream=upstream,
        unsettled=evidence.unsettled & users,
        written={},
        allowed=Allowed(losses=case.allowed),
    )
    rotations = sum(evidence.upstream.refreshes_by_user.get(user, 0) for user in users)
    return Outcome(
        f"{trial.name}: {case.fault}",
        trial.seed,
        rotations,
        len(users),
        len(grants),
        len(lost(share)),
        case.allowed,
        violations(share),
        time.monotonic() - trial.began,
    )
