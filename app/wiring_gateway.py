"""The gateway, wired together."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from app.apis.caller import ApiCaller
from app.gateway.answers import KeptAnswers
from app.gateway.cached import CachedGateway
from app.gateway.gateway import Gateway
from app.gateway.purge import Purger
from app.grants.known import KnownGrants
from app.ground import Ground
from app.jobs import Job

_SWEEP = timedelta(seconds=3)


@dataclass(frozen=True)
class Gateways:
    """What the rest needs of it."""

    gateway: CachedGateway
    answers: KeptAnswers
    purger: Purger
    jobs: list[Job]


def wired_gateway(on: Ground, caller: ApiCaller, known: KnownGrants) -> Gateways:
    """Nothing is started."""
    answers = KeptAnswers(
        on.db, known, on.listener, on.clock, most_bytes=on.read.proxy_cache_bytes, replica=on.replica
    )
    gateway = CachedGateway(Gateway(caller, on.clients), known, on.clients, answers, on.clock)
    purger = Purger(on.db, answers, on.clock)
    return Gateways(gateway, answers, purger, [Job("sweep_answers", answers.sweep, _SWEEP)])
