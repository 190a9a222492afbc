"""What the service is made of: everything wired together once. Nothing is started.

build(ground) -> Services
"""

from __future__ import annotations

from datetime import timedelta

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
from app.grants.counting import Counting
from app.grants.reading import GrantReader
from app.grants.uses import grant_uses
from app.ground import Ground
from app.jobs import Job, Timetable
from app.outbound.addresses import parse_network
from app.wiring_calendars import wired_calendars
from app.wiring_deliveries import wired_deliveries
from app.wiring_gateway import wired_gateway
from app.wiring_grants import wired_grants

_TEND = timedelta(seconds=20)  # a third of the notice that a new data key is given
_REWRAP = timedelta(seconds=15)
_REWRAP_SPAN = timedelta(seconds=1)


def build(on: Ground) -> Services:
    """Everything wired together; nothing started."""
    read, db, vault, listener, clock = on.read, on.db, on.vault, on.listener, on.clock
    grants = wired_grants(on)
    known, refresher = grants.known, grants.refresher
    uses, authenticator = grant_uses(db, clock), Authenticator(db, listener, clock)
    tickets = Tickets(vault, clock, base_url=read.base_url)
    connector = Connector(
        db, vault, on.endpoints, on.clients, on.breakers, grants.registry, tickets, clock,
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
    jobs = [
        Job("set_clock", lambda: db.set_clock(clock), timedelta(minutes=1)),
        Job("flush_uses", uses.flush, timedelta(seconds=5)),
        Job("flush_key_uses", authenticator.uses.flush, timedelta(seconds=10)),
        Job("sweep_api_rates", pacer.sweep, pacing.SWEPT_EVERY),
        Job("tend_data_keys", on.data_keys.tend, _TEND),
        _rewrap(on),
        *grants.jobs,
        *calendars.jobs,
        *gateway.jobs,
        *deliveries.jobs,
        *_trail(on, disclosures, sealer),
    ]
    return Services(
        authenticator=authenticator,
        proxies=Proxies(tuple(map(parse_network, read.trusted_proxies))),
        keys=KeyRegistry(db, clock),
        limiter=RateLimiter(db, clock),
        known=known,
        refresher=refresher,
        due=grants.due,
        registry=grants.registry,
        revoker=grants.revoker,
        uses=uses,
        safekeeping=grants.safekeeping,
        claims=grants.claims,
        incidents=grants.incidents,
        reader=GrantReader(db),
        counting=Counting(db, clock),
        validator=grants.validator,
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
        timetable=Timetable(grants.due, on.drain, clock, interval=interval, jobs=jobs),
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
