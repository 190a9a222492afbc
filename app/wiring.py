"""What the service is made of: everything wired together once. Nothing is started.

build(ground) -> Services
"""

from __future__ import annotations

from datetime import timedelta

from app import settings
from app.api.services import Services
from app.apis import pacing
from app.apis.caller import ApiCaller
from app.apis.pacing import Pacer
from app.audit import disclosures as noted
from app.audit import pruning, sealing
from app.audit.anchor import Anchor
from app.audit.disclosures import AggregatedDisclosures, Disclosures
from app.audit.pruning import Pruner
from app.audit.reading import AuditReader
from app.audit.sealing import Sealer
from app.audit.strict import StrictDisclosures
from app.breakers.sharing import BreakerSharing
from app.breakers.switch import BreakerSwitch
from app.clients.registrar import Registrar
from app.connect.connect import Connector
from app.connect.tickets import Tickets
from app.consumers.authenticate import Authenticator
from app.consumers.callers import Proxies
from app.consumers.keys import KeyRegistry
from app.consumers.limits import RateLimiter
from app.data_keys.rewrap import Rewrapper
from app.grants import pace
from app.grants.answer import Answers
from app.grants.candidates import Candidates
from app.grants.checkup import Checkup
from app.grants.claims import Claims, Limits
from app.grants.counting import Counting
from app.grants.due import DueRefresher
from app.grants.incidents import Incidents
from app.grants.journal import Journal
from app.grants.known import KnownGrants
from app.grants.ledger import Ledger
from app.grants.probing import Prober
from app.grants.protocol import RefreshProtocol
from app.grants.queue import Queue
from app.grants.reading import GrantReader
from app.grants.refresh import Refresher
from app.grants.registry import GrantRegistry
from app.grants.revoke import Revoker
from app.grants.rotation import Rotation
from app.grants.safekeeping import Safekeeping
from app.grants.slots import Slots
from app.grants.uses import grant_uses
from app.grants.validate import Validator
from app.grants.waiting import Waiting
from app.ground import Ground
from app.jobs import Job, Timetable
from app.outbound.addresses import parse_network
from app.wiring_calendars import wired_calendars
from app.wiring_deliveries import wired_deliveries
from app.wiring_gateway import wired_gateway

_TEND = timedelta(seconds=20)  # a third of the notice that a new data key is given
_REWRAP = timedelta(seconds=15)
_REWRAP_SPAN = timedelta(seconds=1)


def build(on: Ground) -> Services:
    """Everything wired together; nothing started."""
    read, db, vault, listener, clock = on.read, on.db, on.vault, on.listener, on.clock
    known, waiting = KnownGrants(db, listener, clock), Waiting(db, listener, clock)
    revoker = Revoker(db, vault, on.endpoints, on.clients, on.drain, clock)
    uses, authenticator = grant_uses(db, clock), Authenticator(db, listener, clock)
    incidents, claims = Incidents(db, known, clock, replica=on.replica), _claims(on)
    rotation = Rotation(vault, clock, margin=read.margin)
    ledger = Ledger(
        db, rotation, incidents, claims, known, clock,
        replica=on.replica, commit_within=timedelta(seconds=settings.COMMIT_SECONDS),
    )  # fmt: skip
    candidates = Candidates(db, vault, ledger, incidents, clock)
    safekeeping = _safekeeping(on, ledger, revoker)
    slots = Slots()
    protocol = RefreshProtocol(
        vault, on.endpoints, on.clients, on.breakers, claims, ledger, candidates, safekeeping, slots, revoker,
        on.drain, clock, backoff=on.backoff,
    )  # fmt: skip
    refresher = Refresher(db, known, Answers(vault, clock), protocol, waiting, on.drain, Queue(), clock)
    due = DueRefresher(
        db, on.clients, on.breakers, on.endpoints, refresher, slots, on.drain, clock,
        concurrency=read.refresh_concurrency,
    )  # fmt: skip
    registry = GrantRegistry(db, vault, on.clients, revoker, waiting, known, clock, margin=read.margin)
    tickets = Tickets(vault, clock, base_url=read.base_url)
    connector = Connector(
        db, vault, on.endpoints, on.clients, on.breakers, registry, tickets, clock,
        base_url=read.base_url, return_to=read.return_to,
    )  # fmt: skip
    sharing = BreakerSharing(db, on.breakers, listener, clock, replica=on.replica)
    interval = timedelta(seconds=read.refresh_interval_seconds)
    disclosures, sealer = _disclosures(on), Sealer(db, vault, Anchor(read.audit_anchor), clock)
    pacer = Pacer(db, listener, clock, replica=on.replica)
    caller = ApiCaller(
        refresher, on.clients, on.breakers, on.api_door, on.clock,
        backoff=on.backoff, pacing=pacer, max_bytes=read.proxy_max_bytes,
    )  # fmt: skip
    calendars, gateway = wired_calendars(on, caller), wired_gateway(on, caller, known)
    deliveries = wired_deliveries(on, gateway.gateway, refresher, known)
    validator = Validator(db, vault, on.endpoints, on.clients, clock)
    jobs = [
        Job("set_clock", lambda: db.set_clock(clock), timedelta(minutes=1)),
        Job("replay_journal", safekeeping.replay, timedelta(seconds=5)),
        Job("flush_uses", uses.flush, timedelta(seconds=5)),
        Job("flush_key_uses", authenticator.uses.flush, timedelta(seconds=10)),
        Job("review_incidents", incidents.review, timedelta(seconds=15)),
        Job("revoke_due", revoker.revoke_due, timedelta(seconds=15)),
        Job("probe_due", Prober(db, protocol, on.drain).probe_due, timedelta(minutes=1)),
        Job("erase_candidates", candidates.erase_old, timedelta(minutes=10)),
        Job("sweep_api_rates", pacer.sweep, pacing.SWEPT_EVERY),
        Job("tend_data_keys", on.data_keys.tend, _TEND),
        _rewrap(on),
        *calendars.jobs,
        *gateway.jobs,
        *deliveries.jobs,
        *_trail(on, disclosures, sealer),
        *_checkup(on, validator, refresher, incidents, known),
    ]
    return Services(
        authenticator=authenticator,
        proxies=Proxies(tuple(map(parse_network, read.trusted_proxies))),
        keys=KeyRegistry(db, clock),
        limiter=RateLimiter(db, clock),
        known=known,
        refresher=refresher,
        due=due,
        registry=registry,
        revoker=revoker,
        uses=uses,
        safekeeping=safekeeping,
        claims=claims,
        incidents=incidents,
        reader=GrantReader(db),
        counting=Counting(db, clock),
        validator=validator,
        connector=connector,
        calendars=calendars.of_users,
        calendar_apis=calendars.apis,
        calendar_reader=calendars.reader,
        event_writer=calendars.writer,
        hearing=calendars.hearing,
        gateway=gateway.gateway,
        answers=gateway.answers,
        purger=gateway.purger,
        proxy_max_bytes=read.proxy_max_bytes,
        sender=deliveries.sender,
        acceptor=deliveries.acceptor,
        delivery_reader=deliveries.reader,
        delivery_measures=deliveries.measures,
        decider=deliveries.decider,
        progress=deliveries.progress,
        cron=deliveries.cron,
        pacer=pacer,
        tickets=tickets,
        clients=on.clients,
        registrar=Registrar(db, vault, on.clients, listener, clock),
        breakers=on.breakers,
        sharing=sharing,
        switch=BreakerSwitch(on.breakers, on.clients, sharing, clock),
        audit=AuditReader(db),
        disclosures=disclosures,
        sealer=sealer,
        timetable=Timetable(due, on.drain, clock, interval=interval, jobs=jobs),
        drain=on.drain,
        db=db,
        vault=vault,
        data_keys=on.data_keys,
        clock=clock,
        base_url=read.base_url,
        metrics_key=None if read.metrics_key is None else read.metrics_key.get_secret_value(),
        replica=on.replica,
        started_at=clock.now(),
    )


def _rewrap(on: Ground) -> Job:
    """In the background, and slowly: what `broker rotate-keys` does at once."""
    rewrapper = Rewrapper(on.db, on.vault, on.clock, batch=50, superseded_for=timedelta(days=1))
    return Job("rewrap", lambda: rewrapper.work_for(_REWRAP_SPAN), _REWRAP)


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


def _disclosures(on: Ground) -> Disclosures:
    if on.read.audit_disclosures == "strict":
        return StrictDisclosures(on.db, on.clock)
    return AggregatedDisclosures(on.db, on.clock)


def _trail(on: Ground, disclosures: Disclosures, sealer: Sealer) -> list[Job]:
    jobs = [
        Job("flush_disclosures", disclosures.flush, noted.EVERY),
        Job("seal_audit", sealer.seal, sealing.EVERY),
    ]
    if days := on.read.audit_retention_days:
        pruner = Pruner(on.db, on.vault, on.drain, on.clock, kept_for=timedelta(days=days))
        jobs.append(Job("prune_audit", pruner.prune, pruning.EVERY))
    return jobs


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
