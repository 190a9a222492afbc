"""`Services`: what `app.wiring` makes and routes conduct."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Request

from app.apis.pacing import Pacer
from app.audit.disclosures import Disclosures
from app.audit.reading import AuditReader
from app.audit.sealing import Sealer
from app.breaker import Breakers
from app.breakers.sharing import BreakerSharing
from app.breakers.switch import BreakerSwitch
from app.calendars.asking import CalendarApis
from app.calendars.hearing import Hearing
from app.calendars.reading import CalendarReader
from app.calendars.user import UserCalendars
from app.calendars.writing import EventWriter
from app.clients.registrar import Registrar
from app.clock import Clock
from app.connect.connect import Connector
from app.connect.tickets import Tickets
from app.consumers.authenticate import Authenticator
from app.consumers.callers import Proxies
from app.consumers.keys import KeyRegistry
from app.consumers.limits import RateLimiter
from app.data_keys.keeper import DataKeys
from app.db import Database
from app.deliveries.accepting import Acceptor
from app.deliveries.cron import Cron
from app.deliveries.deciding import Decider
from app.deliveries.measuring import DeliveryMeasures
from app.deliveries.progress import Progress
from app.deliveries.reading import DeliveryReader
from app.deliveries.sending import Sender
from app.drain import Drain
from app.gateway.answers import KeptAnswers
from app.gateway.cached import CachedGateway
from app.gateway.purge import Purger
from app.grants.claims import Claims
from app.grants.counting import Counting
from app.grants.due import DueRefresher
from app.grants.incidents import Incidents
from app.grants.known import KnownGrants
from app.grants.reading import GrantReader
from app.grants.refresh import Refresher
from app.grants.registry import GrantRegistry
from app.grants.revoke import Revoker
from app.grants.safekeeping import Safekeeping
from app.grants.validate import Validator
from app.jobs import Timetable
from app.oauth.client import OAuthClients
from app.uses import Uses
from app.vault.vault import Vault


@dataclass(frozen=True)
class Services:
    """Everything the routes conduct; `app.wiring` makes it."""

    authenticator: Authenticator
    proxies: Proxies
    keys: KeyRegistry
    limiter: RateLimiter
    known: KnownGrants
    refresher: Refresher
    due: DueRefresher
    registry: GrantRegistry
    revoker: Revoker
    uses: Uses[UUID]
    safekeeping: Safekeeping
    claims: Claims
    incidents: Incidents
    reader: GrantReader
    counting: Counting
    validator: Validator
    connector: Connector
    calendars: UserCalendars
    calendar_apis: CalendarApis
    calendar_reader: CalendarReader
    event_writer: EventWriter
    hearing: Hearing
    gateway: CachedGateway
    answers: KeptAnswers
    acceptor: Acceptor
    delivery_reader: DeliveryReader
    delivery_measures: DeliveryMeasures
    decider: Decider
    progress: Progress
    cron: Cron
    sender: Sender
    pacer: Pacer
    purger: Purger
    tickets: Tickets
    clients: OAuthClients
    registrar: Registrar
    breakers: Breakers
    sharing: BreakerSharing
    switch: BreakerSwitch
    audit: AuditReader
    disclosures: Disclosures
    sealer: Sealer
    timetable: Timetable
    drain: Drain
    db: Database
    vault: Vault
    data_keys: DataKeys
    clock: Clock
    base_url: str
    proxy_max_bytes: int
    metrics_key: str | None
    replica: str
    started_at: datetime


def services_of(request: Request) -> Services:
    return cast(Services, request.app.state.services)


async def _services(request: Request) -> Services:
    return services_of(request)


Use = Annotated[Services, Depends(_services)]
