"""Deliveries, wired together."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from app.deliveries import sending, sweeping
from app.deliveries.accepting import Acceptor
from app.deliveries.attempting import Attempts
from app.deliveries.cron import Cron
from app.deliveries.deciding import Decider
from app.deliveries.endings import Endings
from app.deliveries.measuring import DeliveryMeasures
from app.deliveries.progress import Progress
from app.deliveries.reading import DeliveryReader
from app.deliveries.sending import Sender
from app.deliveries.sweeping import Sweeper
from app.gateway.cached import CachedGateway
from app.gateway.call import DEFAULT_WITHIN_SECONDS
from app.gateway.gateway import BODY_SECONDS
from app.grants.known import KnownGrants
from app.grants.refresh import Refresher
from app.ground import Ground
from app.jobs import Job

_BEFORE_STUCK = 0.8  # of the time after which a claim is stuck, an attempt may take
_MOST_OFTEN, _LEAST_OFTEN = 1.0, 30.0


@dataclass(frozen=True)
class Deliveries:
    """What the rest needs of them."""

    sender: Sender
    acceptor: Acceptor
    reader: DeliveryReader
    measures: DeliveryMeasures
    decider: Decider
    progress: Progress
    cron: Cron
    jobs: list[Job]


def wired_deliveries(
    on: Ground, gateway: CachedGateway, refresher: Refresher, known: KnownGrants
) -> Deliveries:
    """Nothing is started."""
    read = on.read
    stuck_seconds = read.delivery_stuck_seconds
    longest = stuck_seconds * _BEFORE_STUCK
    endings = Endings(on.db, on.clock)
    attempts = Attempts(
        on.vault, refresher, gateway, endings, on.clock,
        longest=longest, within=min(DEFAULT_WITHIN_SECONDS, longest * 0.3),
        body_within=min(BODY_SECONDS, longest / 8),
    )  # fmt: skip
    sender = Sender(
        on.db, attempts, endings, on.drain, on.clock,
        replica=on.replica, concurrency=read.delivery_concurrency, stuck_after=timedelta(seconds=stuck_seconds),
    )  # fmt: skip
    sweeper = Sweeper(on.db, on.drain, kept_for=timedelta(days=read.delivery_kept_days))
    decider = Decider(on.db, on.clock, wake=sender.wake)
    often = timedelta(seconds=min(max(stuck_seconds / 4, _MOST_OFTEN), _LEAST_OFTEN))

    async def release() -> None:
        await sender.release_stuck()

    async def sweep() -> None:
        await decider.end_half_cancelled()
        await sweeper.sweep()

    jobs = [
        Job("send_deliveries", sender.look, sending.EVERY),
        Job("release_deliveries", release, often),
        Job("sweep_deliveries", sweep, sweeping.EVERY),
    ]
    secret = read.cron_secret
    return Deliveries(
        sender=sender,
        acceptor=Acceptor(on.db, on.vault, on.clients, known, on.clock, wake=sender.wake),
        reader=DeliveryReader(on.db, on.vault),
        measures=DeliveryMeasures(on.db, on.clock),
        decider=decider,
        progress=Progress(on.db, on.drain, on.clock),
        cron=Cron(sender, on.drain, on.clock, secret=None if secret is None else secret.get_secret_value()),
        jobs=jobs,
    )
