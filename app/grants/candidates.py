"""Answers that T2 could not store, taken up again: before anything is sent where they fit what is stored, and as a last
resort where the provider calls that dead."""

from __future__ import annotations

import json
from datetime import timedelta

from app.clock import Clock
from app.db import Database
from app.grants import candidate_store
from app.grants.attempt import Run, reason_of_death
from app.grants.candidate_store import Candidate
from app.grants.incidents import Incidents
from app.grants.ledger import Ledger
from app.grants.sealing import place_of_candidate
from app.oauth.answers import TokenSet
from app.telemetry import logger
from app.vault.seal import CannotOpen
from app.vault.vault import Vault

log = logger(__name__)

KEPT_FOR = timedelta(hours=24)
_ERASED_AT_ONCE = 1000


class Candidates:
    """Safe on any number of replicas: what is adopted is committed under the claim of whoever does it."""

    def __init__(
        self, db: Database, vault: Vault, ledger: Ledger, incidents: Incidents, clock: Clock
    ) -> None:
        self._db = db
        self._vault = vault
        self._ledger = ledger
        self._incidents = incidents
        self._clock = clock

    async def adopt(self, run: Run) -> bool:
        """Whether an answer was kept for the very refresh token that is stored. It is stored in its place now, nothing
        has to be sent, and the grant has to be read again. Raises DatabaseUnavailable."""
        if run.claim.candidate_id is None:
            return False
        async with self._db.begin() as tx:
            candidate = await candidate_store.find(tx, run.claim.candidate_id)
        return candidate is not None and await self._commit(run, candidate)

    async def adopt_last(self, run: Run) -> bool:
        """Whether there was an answer left to fall back to, now that the provider refuses the refresh token that is
        stored, and is believed: it may have kept another successor of the same one. Raises DatabaseUnavailable."""
        grant = run.claim.grant
        if not run.claim.has_candidates:
            return False
        async with self._db.begin() as tx:
            candidate = await candidate_store.latest(tx, grant.id, grant.lineage_id)
            if candidate is None or await self._incidents.doubt(tx, run, reason_of_death(run)) is not None:
                return False
        return await self._commit(run, candidate)

    async def erase_old(self) -> None:
        """A provider keeps a successor that was never used no longer. Raises DatabaseUnavailable."""
        async with self._db.begin() as tx:
            await candidate_store.erase_older(tx, than=KEPT_FOR, limit=_ERASED_AT_ONCE)

    async def _commit(self, run: Run, candidate: Candidate) -> bool:
        try:
            text = self._vault.open(candidate.sealed_tokens, place_of_candidate(candidate.id))
        except CannotOpen:
            log.error("candidate.unreadable", grant_id=str(candidate.grant_id))
            return False
        run.adopts = candidate.id
        run.took = timedelta(0)
        run.sent_at = self._clock.monotonic() - (self._clock.now() - candidate.sent_at).total_seconds()
        await self._ledger.commit_late(run, TokenSet(**json.loads(text)))
        log.warning("candidate.adopted", grant_id=str(candidate.grant_id), provider=run.client.name)
        return True
