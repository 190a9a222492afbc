"""Grants, wired together: what keeps them fresh, and what looks after them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from app import settings
from app.grants import pace
from app.grants.answer import Answers
from app.grants.candidates import Candidates
from app.grants.checkup import Checkup
from app.grants.claims import Claims, Limits
from app.grants.due import DueRefresher
from app.grants.incidents import Incidents
from app.grants.journal import Journal
from app.grants.known import KnownGrants
from app.grants.ledger import Ledger
from app.grants.probing import Prober
from app.grants.protocol import RefreshProtocol
from app.grants.queue import Queue
from app.grants.refresh import Refresher
from app.grants.registry import GrantRegistry
from app.grants.revoke import Revoker
from app.grants.rotation import Rotation
from app.grants.safekeeping import Safekeeping
from app.grants.slots import Slots
from app.grants.validate import Validator
from app.grants.waiting import Waiting
from app.ground import Ground
from app.jobs import Job


@dataclass(frozen=True)
class Grants:
    """What the rest needs of them."""

    known: KnownGrants
    refresher: Refresher
    due: DueRefresher
    registry: GrantRegistry
    revoker: Revoker
    safekeeping: Safekeeping
    claims: Claims
    incidents: Incidents
    validator: Validator
    jobs: list[Job]


def wired_grants(on: Ground) -> Grants:
    """Nothing is started."""
    db, vault, clock = on.db, on.vault, on.clock
    known, waiting = KnownGrants(db, on.listener, clock), Waiting(db, on.listener, clock)
    revoker = Revoker(db, vault, on.endpoints, on.clients, on.drain, clock)
    incidents, claims = Incidents(db, known, clock, replica=on.replica), _claims(on)
    ledger = Ledger(
        db, Rotation(vault, clock, margin=on.read.margin), incidents, claims, known, clock,
        replica=on.replica, commit_within=timedelta(seconds=settings.COMMIT_SECONDS),
    )  # fmt: skip
    candidates = Candidates(db, vault, ledger, incidents, clock)
    safekeeping, slots = _safekeeping(on, ledger, revoker), Slots()
    protocol = RefreshProtocol(
        vault, on.endpoints, on.clients, on.breakers, claims, ledger, candidates, safekeeping, slots, revoker,
        on.drain, clock, backoff=on.backoff,
    )  # fmt: skip
    refresher = Refresher(db, known, Answers(vault, clock), protocol, waiting, on.drain, Queue(), clock)
    due = DueRefresher(
        db, on.clients, on.breakers, on.endpoints, refresher, slots, on.drain, clock,
        concurrency=on.read.refresh_concurrency,
    )  # fmt: skip
    registry = GrantRegistry(db, vault, on.clients, revoker, waiting, known, clock, margin=on.read.margin)
    validator = Validator(db, vault, on.endpoints, on.clients, clock)
    jobs = [
        Job("replay_journal", safekeeping.replay, timedelta(seconds=5)),
        Job("review_incidents", incidents.review, timedelta(seconds=15)),
        Job("revoke_due", revoker.revoke_due, timedelta(seconds=15)),
        Job("probe_due", Prober(db, protocol, on.drain).probe_due, timedelta(minutes=1)),
        Job("erase_candidates", candidates.erase_old, timedelta(minutes=10)),
        *_checkup(on, validator, refresher, incidents, known),
    ]
    return Grants(known, refresher, due, registry, revoker, safekeeping, claims, incidents, validator, jobs)


def _safekeeping(on: Ground, ledger: Ledger, revoker: Revoker) -> Safekeeping:
    within = timedelta(seconds=settings.JOURNAL_SECONDS)
    journal = Journal(on.read.journal_folder, on.clock, replica=on.replica, within=within)
    return Safekeeping(
        on.db, on.vault, on.clients, ledger, revoker, journal, on.listener, on.drain, on.clock,
        quiet=on.read.lease_ttl * settings.QUIET_LEASES,
    )  # fmt: skip


def _claims(on: Ground) -> Claims:
    limits = Limits(
        lease_ttl=on.read.lease_ttl,
        send_window=timedelta(seconds=settings.SEND_WINDOW_SECONDS),
        hold_at_least=on.read.lease_ttl * settings.HOLD_LEASES,
    )
    return Claims(on.db, on.clock, replica=on.replica, limits=limits)


def _checkup(
    on: Ground, validator: Validator, refresher: Refresher, incidents: Incidents, known: KnownGrants
) -> list[Job]:
    """Nothing, unless it is switched on."""
    if not on.read.validate_every_seconds:
        return []
    checkup = Checkup(
        on.db, validator, refresher, known, on.endpoints, on.clients, on.breakers, incidents, on.drain, on.clock,
        every=timedelta(seconds=on.read.validate_every_seconds), per_minute=on.read.validate_per_minute,
    )  # fmt: skip
    return [Job("validate_due", checkup.validate_due, pace.EVERY)]
