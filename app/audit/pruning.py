"""Retention: events that are old enough go from the chain's beginning, and the trail says so itself."""

from __future__ import annotations

from datetime import timedelta

from app.audit import chain_store, store
from app.audit.chain import PRUNING_PURPOSE, pruned_proof
from app.audit.event import AuditEvent
from app.clock import Clock
from app.db import Database
from app.drain import Drain
from app.telemetry import logger
from app.vault.vault import Vault

log = logger(__name__)

PRUNED = "audit.pruned"
EVERY = timedelta(minutes=10)
_AT_ONCE = 1000
_BATCHES = 100
_CLOCKS = timedelta(minutes=1)  # PostgreSQL judges by its own


class Pruner:
    """Safe on any number of replicas: they take turns at the chain's beginning."""

    def __init__(
        self, db: Database, vault: Vault, drain: Drain, clock: Clock, *, kept_for: timedelta
    ) -> None:
        self._db = db
        self._vault = vault
        self._drain = drain
        self._clock = clock
        self._kept_for = kept_for

    async def prune(self) -> None:
        """Takes what is older than it has to be, up to a bound. Raises DatabaseUnavailable."""
        for _ in range(_BATCHES):
            if self._drain.begun or await self._prune_some() < _AT_ONCE:
                return

    async def _prune_some(self) -> int:
        before = self._clock.now() - self._kept_for - _CLOCKS
        async with self._db.begin() as tx:
            pruned = await chain_store.prune(tx, before=before, limit=_AT_ONCE)
            if pruned.events:
                key_id, key = self._vault.derived_key(PRUNING_PURPOSE)
                details = {
                    "sequence": pruned.beginning.sequence,
                    "hash": pruned.beginning.hash.hex(),
                    "events": pruned.events,
                    "before": before.isoformat(),
                    "key_id": str(key_id),
                    "proof": pruned_proof(key, pruned.beginning, events=pruned.events, before=before),
                }
                await store.record(tx, AuditEvent(PRUNED, details=details), now=self._clock.now())
        if pruned.events:
            log.info(PRUNED, sequence=pruned.beginning.sequence, events=pruned.events)
        return pruned.events
