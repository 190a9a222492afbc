"""Provider incidents: when a provider calls many grants dead at once, none of them is believed dead yet.

doubt      a refusal is about to be believed: not while an incident is open, and not if it makes one
recovered  a refused grant was refreshed after all
review     by the timetable: takes back what was believed just before, and clears what is over
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.audit import store as audit
from app.audit.event import AuditEvent
from app.clock import Clock
from app.db import Database, Tx
from app.errors import ProviderUnavailable, Sent
from app.grants import incident_store
from app.grants.attempt import Run, as_recorded
from app.grants.grant import INCIDENT, Grant, Trigger
from app.grants.incident import Incident, has_recovered, is_over
from app.grants.known import KnownGrants
from app.grants.schedule import failure_backoff
from app.ids import uuid7
from app.metrics import INCIDENTS
from app.telemetry import logger

log = logger(__name__)

_TRY_EVERY = timedelta(minutes=5)  # each refused grant, at most
_CLEARED_WITHIN = timedelta(minutes=1)
_AT_ONCE = 200


@dataclass(frozen=True)
class Doubt:
    """What callers are told in place of "reconnect", and when the grant is tried again."""

    error: ProviderUnavailable
    retry_in: timedelta


class Incidents:
    """Keeps a provider's bad hour from logging everybody out. Safe on any number of replicas."""

    def __init__(self, db: Database, known: KnownGrants, clock: Clock, *, replica: str) -> None:
        self._db = db
        self._known = known
        self._clock = clock
        self._replica = replica
        self._open: dict[str, datetime] = {}

    @property
    def open(self) -> Mapping[str, datetime]:
        """Since when each provider that has an incident has it, as of the last review."""
        return self._open

    async def doubt(self, tx: Tx, run: Run, reason: str) -> Doubt | None:
        """Why the refusal of the grant is not believed; None where it is.

        One that we explain ourselves (a lost rotation) makes no incident, but is doubted while one is open. A dead
        grant that is probed is not asked about.
        """
        if run.claim.trigger is Trigger.PROBE:
            return None
        provider = run.claim.grant.key.provider
        if await incident_store.find_open(tx, provider) is None and (
            reason != "invalid_grant" or not await self._opened(tx, run.claim.grant)
        ):
            return None
        retry_in = max(_TRY_EVERY, failure_backoff(run.claim.grant.failures))
        error = _error(run.client.title, run.client.name, retry_in)
        return Doubt(error, retry_in)

    async def recovered(self, tx: Tx, grant: Grant) -> None:
        """It was refused, and has been refreshed in `tx`."""
        await incident_store.note_recovery(tx, grant.key.provider)

    async def review(self) -> None:
        """Raises DatabaseUnavailable."""
        async with self._db.begin() as tx:
            incidents = await incident_store.all_open(tx)
        for incident in incidents:
            await self._review(incident)
        self._open = {incident.provider: incident.opened_at for incident in incidents}
        INCIDENTS.clear()
        for provider in self._open:
            INCIDENTS.labels(provider).set(1)

    async def _review(self, incident: Incident) -> None:
        await self._revive(incident)
        async with self._db.begin() as tx:
            toll = await incident_store.toll(tx, incident.provider)
        if not is_over(incident, toll, self._clock.now()):
            return
        # Before it is cleared: whoever dies in between leaves it to the next review, with nobody believed dead by it.
        hurried = _AT_ONCE
        while hurried == _AT_ONCE:
            async with self._db.begin() as tx:
                hurried = await incident_store.hurry(
                    tx,
                    incident,
                    within=_CLEARED_WITHIN,
                    forgiven=has_recovered(incident, toll),
                    limit=_AT_ONCE,
                )
        await self._clear(incident)

    async def _revive(self, incident: Incident) -> None:
        error = as_recorded(_error(incident.provider, incident.provider, _TRY_EVERY), self._clock.now())
        while True:
            async with self._db.begin() as tx:
                revived = await incident_store.revive(
                    tx, incident, error=error, least=_TRY_EVERY, most=2 * _TRY_EVERY, limit=_AT_ONCE
                )
                for grant in revived:
                    await audit.record(tx, _event("grant.revived", grant), now=self._clock.now())
            for grant in revived:
                await self._known.changed(grant)
            if len(revived) < _AT_ONCE:
                return

    async def _clear(self, incident: Incident) -> None:
        details = {"recovered": incident.recovered}
        event = AuditEvent("provider.incident_cleared", provider=incident.provider, details=details)
        async with self._db.begin() as tx:
            if not await incident_store.clear(tx, incident):
                return
            await audit.record(tx, event, now=self._clock.now())
        log.warning("provider.incident_cleared", provider=incident.provider)

    async def _opened(self, tx: Tx, grant: Grant) -> bool:
        """Whether its refusal makes an incident."""
        if grant.refused_at is not None:
            return False  # it was doubted once, and is refused still
        provider = grant.key.provider
        toll = await incident_store.toll(tx, provider, and_grant=grant.id)
        if not toll.is_incident:
            return False
        now = self._clock.now()
        if await incident_store.add(
            tx, incident_id=uuid7(now), provider=provider, refused=toll.refused, replica=self._replica
        ):
            details = {"refused": toll.refused, "replica": self._replica}
            event = AuditEvent("provider.incident_opened", provider=provider, details=details)
            await audit.record(tx, event, now=now)
            log.error("provider.incident_opened", provider=provider, refused=toll.refused)
        return True


def _event(action: str, grant: Grant) -> AuditEvent:
    key = grant.key
    return AuditEvent(action, provider=key.provider, user_id=key.user_id, grant_id=grant.id)


def _error(title: str, provider: str, retry_in: timedelta) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"{title} is refusing many connections at once, which looks like a fault of its own. Your connection is kept; "
        "try again later.",
        provider=provider,
        sent=Sent.ANSWERED,
        provider_code=INCIDENT,
        retry_after=round(retry_in.total_seconds()),
    )
