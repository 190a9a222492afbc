"""A provider that is out for an hour: how few calls that costs, and how soon all is well when it is back.

On simulated time: see `simulated`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any

from app.api.services import Services
from app.errors import BrokerError
from app.grants.grant import GrantKey
from app.grants.imported import Import
from app.grants.token import Need
from app.sandbox.faults import Faults
from app.settings import Settings
from app.telemetry import configure_logging
from tests.broker import settings_for
from tests.faults.answered import PASSING
from tests.faults.invariants import Violation, lost, violations
from tests.faults.simulated import SimulatedTime, Simulation
from tests.faults.supervisor import World
from tests.faults.trial import NOTHING, Outcome, Size

HOUR = 3600.0
SIZE = Size(600, 1)
REPLICAS = 3
ASKED_EACH_STEP = 2  # grants, of each replica: so that whoever may ask the provider again does so at once
PROMISED_SHARE = 0.1
RECOVERED_WITHIN = 900.0
_FRESH, _DEGRADED = "fresh", "degraded"
DEFAULTS = {"refresh_interval_seconds": 300, "retry_base_seconds": 1.0}  # the service's own
# A provider that hangs does so in real time, which is the hour's time as well; ten seconds each would make it a long one.
OUTAGES: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "503": ({"kind": "status", "status": 503}, {}),
    "hang": ({"kind": "hang"}, {"upstream_timeout_seconds": 1.0}),
}


@dataclass(frozen=True)
class Hour:
    """How often the provider was asked, and what callers were told."""

    calls: int
    told: Counter[str]

    def __str__(self) -> str:
        told = ", ".join(f"{what} {times:,}" for what, times in self.told.most_common())
        return f"{self.calls} calls; callers were told {told}"


@dataclass
class Callers:
    """Who asks each replica all the time, for any of the users."""

    simulation: Simulation
    provider: str
    users: list[str]
    random: Random
    told: Counter[str] = field(default_factory=Counter)

    def ask(self) -> Iterator[Coroutine[None, None, None]]:
        for services in self.simulation.replicas:
            for user in self.random.sample(self.users, ASKED_EACH_STEP):
                yield self._ask(services, GrantKey(self.provider, user))

    async def _ask(self, services: Services, key: GrantKey) -> None:
        try:
            token = await services.refresher.fresh(key, Need())
        except BrokerError as error:
            self.told[error.code] += 1
        else:
            self.told[_DEGRADED if token.degraded else _FRESH] += 1


async def hour_long(seed: int, size: Size, *, kind: str) -> Outcome:
    """An hour in which all is well, another in which the provider is out, and the time until each grant is refreshed."""
    configure_logging(log_format="json", level="ERROR")
    began = time.monotonic()
    fault, settings = OUTAGES[kind]
    async with (
        World.running(replicas=0, delay=0.0, access_ttl=HOUR) as world,
        SimulatedTime.of(world.postgres.settings["DATABASE_URL"]) as shared,
        Simulation.running(
            shared, [_settings(world, number, settings) for number in range(REPLICAS)]
        ) as simulation,
    ):
        users = [f"user-{number}" for number in range(size.grants)]
        callers = Callers(simulation, world.provider, users, Random(seed))
        await _bring(callers, world)
        await _hour(callers, world)  # until how tokens end is our own doing
        healthy = await _hour(callers, world)
        await world.authorization_server.control(faults=[{**fault, "times": Faults.UNTIL_CLEARED}])
        out = await _hour(callers, world)
        await world.authorization_server.control(clear_faults=True)
        recovered = await _recovered(callers, world)
        evidence = await world.evidence(world.load(users, seed=seed), unsettled=frozenset(), allowed=NOTHING)
    return Outcome(
        f"outage {kind}",
        seed,
        evidence.upstream.refreshes,
        1,
        len(users),
        len(lost(evidence)),
        0,
        [*violations(evidence), *_broken(healthy, out, recovered)],
        time.monotonic() - began,
        [
            f"a healthy hour: {healthy}",
            f"an hour of {kind}: {out}; {out.calls / healthy.calls:.3f} of the calls",
            "each grant refreshed "
            + ("too late" if recovered is None else f"{recovered:.0f} s after its end"),
        ],
    )


def _broken(healthy: Hour, out: Hour, recovered: float | None) -> Iterator[Violation]:
    if out.calls > PROMISED_SHARE * healthy.calls:
        yield Violation(
            "an_outage_costs_few_calls", f"{out.calls}, where a healthy hour takes {healthy.calls}"
        )
    if recovered is None:
        yield Violation("all_recover_from_an_outage", f"not within {RECOVERED_WITHIN:.0f} s")
    for code in {*healthy.told, *out.told} - PASSING - {_FRESH, _DEGRADED}:
        yield Violation("failures_can_be_tried_again", code)


def _settings(world: World, number: int, settings: Mapping[str, Any]) -> Settings:
    """The service's defaults."""
    return settings_for(
        world.postgres.settings["DATABASE_URL"], world.folder / "providers", data_dir=world.folder / f"var-{number}",
        migrate=True, **{**DEFAULTS, **settings},
    )  # fmt: skip


async def _bring(callers: Callers, world: World) -> None:
    """Grants whose tokens end one after the other, over the hour."""
    for number, user in enumerate(callers.users):
        services = callers.simulation.replicas[number % REPLICAS]
        tokens = await world.authorization_server.grant(user)
        left = timedelta(seconds=HOUR * (number + 1) / len(callers.users))
        brought = Import(tokens["access_token"], tokens["refresh_token"], services.clock.now() + left)
        await services.registry.put(GrantKey(callers.provider, user), brought, actor="fault suite")


async def _hour(callers: Callers, world: World) -> Hour:
    await world.authorization_server.control(reset_counters=True)
    callers.told.clear()
    await callers.simulation.pass_by(HOUR, callers.ask)
    report = await world.authorization_server.control()
    return Hour(report["hits"].get("token", 0), callers.told.copy())


async def _recovered(callers: Callers, world: World) -> float | None:
    """Seconds until each grant has been refreshed since now; None where that takes too long."""
    shared = callers.simulation.time
    began = shared.monotonic()
    [[since]] = await world.postgres.query("SELECT clock_timestamp()")
    while shared.monotonic() < began + RECOVERED_WITHIN:
        await callers.simulation.pass_by(5.0, callers.ask)
        [[left]] = await world.postgres.query(
            "SELECT count(*) FROM grants WHERE last_refreshed_at IS NULL OR last_refreshed_at < $1", since
        )
        if not left:
            return shared.monotonic() - began
    return None
