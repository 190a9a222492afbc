"""New tokens between the provider's answer and T2: journaled first, and committed late where T2 did not come to it.

keep      before T2: on disk, sealed, where the answer brought a refresh token that exists nowhere else
done      after T2, or once it is known that nobody wants them
replay    what this replica could not commit, and what replicas left that are no more, through T2's own rules
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from datetime import timedelta
from uuid import UUID

from app.clock import Clock
from app.db import Database
from app.drain import Drain
from app.errors import UnknownProvider
from app.grants import store
from app.grants.attempt import Run
from app.grants.grant import LeanGrant
from app.grants.journal import Journal, JournalUnavailable
from app.grants.journal_record import Entry
from app.grants.ledger import Ledger
from app.grants.revoke import Revoker
from app.listener import Listener
from app.oauth.answers import TokenSet
from app.oauth.client import OAuthClient, OAuthClients
from app.telemetry import logger
from app.vault.seal import CannotOpen, Place
from app.vault.vault import KeyNotKnown, Vault

log = logger(__name__)

_AT_MOST_QUIET = timedelta(minutes=1)
_BEYOND_COMMIT_SECONDS = 10.0  # T2 tries for 8 s: what is older is nobody's any more


@dataclass(frozen=True)
class Kept:
    """How the journal is, for health checks and metrics. `error` None: it can be written."""

    outstanding: int
    bytes: int
    error: str | None


class Safekeeping:
    """Loses no answer. Safe on any number of replicas that share the journal's directory."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        clients: OAuthClients,
        ledger: Ledger,
        revoker: Revoker,
        journal: Journal,
        listener: Listener,
        drain: Drain,
        clock: Clock,
        *,
        quiet: timedelta,
    ) -> None:
        """`quiet`: how long PostgreSQL has to have answered before a claim at a strict provider is taken over."""
        self._db = db
        self._vault = vault
        self._clients = clients
        self._ledger = ledger
        self._revoker = revoker
        self._journal = journal
        self._listener = listener
        self._quiet = quiet
        self._pending: dict[UUID, Entry] = {}  # by grant: answers of this replica that are not committed yet
        self._drain = drain
        self._clock = clock

    @property
    def kept(self) -> Kept:
        return Kept(self._journal.outstanding, self._journal.size, self._journal.last_error)

    async def open(self) -> None:
        """Begins. Where the journal cannot be written the service goes on: valid tokens are still answered."""
        try:
            await self._journal.open()
        except JournalUnavailable:
            log.error("journal.not_opened", reason=self._journal.last_error)

    async def close(self) -> None:
        await self._journal.close()

    async def require(self, client: OAuthClient) -> None:
        """Raises JournalUnavailable where an answer of this provider could not be kept: nothing should be sent then."""
        if client.provider.rotates:
            await self._journal.check()

    async def settle_own(self, grant_id: UUID) -> bool:
        """Whether an answer for the grant was waiting here, and is settled now: what is stored has to be read again.

        Raises DatabaseUnavailable.
        """
        entry = self._pending.get(grant_id)
        if entry is None or not await self._settle(entry):
            return False
        self._forget(entry.grant_id, entry.attempt_id)
        return True

    def may_take_over(self, client: OAuthClient, grant: LeanGrant) -> bool:
        """Whether a claim of somebody else, whose outcome is unknown, may be taken over once its time is over.

        Where reuse revokes the family, not while PostgreSQL has only just come back: whoever holds the answer in a journal
        has had no chance yet. For a minute, that is, so that a listener that never hears stops nobody for ever.
        """
        if not client.provider.is_strict or self._listener.steady_seconds >= self._quiet.total_seconds():
            return True
        return grant.takeover_at is not None and self._clock.now() > grant.takeover_at + _AT_MOST_QUIET

    async def keep(self, run: Run, tokens: TokenSet) -> None:
        """On disk, before T2. Where that fails T2 still has its chance."""
        if tokens.refresh_token is None:
            return
        claim, took = run.claim, timedelta(seconds=self._clock.monotonic() - run.sent_at)
        place = _place(claim.attempt_id, claim.grant.generation)
        entry = Entry(
            attempt_id=claim.attempt_id,
            epoch=claim.epoch,
            grant_id=claim.grant.id,
            provider=run.client.name,
            lineage_id=claim.grant.lineage_id,
            generation=claim.grant.generation,
            base_fingerprint=claim.grant.refresh_fingerprint,
            trigger=claim.trigger,
            sealed=self._vault.seal(json.dumps(asdict(tokens)), place),
            received_at=self._clock.now(),
            took=took,
        )
        self._pending[entry.grant_id] = entry
        try:
            await self._journal.append(entry)
        except JournalUnavailable:
            log.error("journal.entry_not_written", grant_id=str(claim.grant.id), provider=run.client.name)

    def done(self, run: Run) -> None:
        """PostgreSQL has them, or nobody wants them any more."""
        self._forget(run.claim.grant.id, run.claim.attempt_id)

    def _forget(self, grant_id: UUID, attempt_id: UUID) -> None:
        self._journal.done(attempt_id)
        pending = self._pending.get(grant_id)
        if pending is not None and pending.attempt_id == attempt_id:
            del self._pending[grant_id]

    async def replay(self) -> None:
        """Commits what is left. Raises DatabaseUnavailable; what was not settled then is tried again."""
        if self._drain.begun:
            return
        for entry in self._journal.unsettled(_BEYOND_COMMIT_SECONDS):
            if await self._settle(entry):
                self._forget(entry.grant_id, entry.attempt_id)
        async with aclosing(self._journal.orphans()) as orphans:
            async for orphan in orphans:
                if await self._settle_all(orphan.entries):
                    await self._journal.settled(orphan)

    async def _settle_all(self, entries: Sequence[Entry]) -> bool:
        return all([await self._settle(entry) for entry in entries])

    async def _settle(self, entry: Entry) -> bool:
        """Whether nothing is left to do for the entry."""
        try:
            client = self._clients.get(entry.provider)
            text = self._vault.open(entry.sealed, _place(entry.attempt_id, entry.generation))
        except (
            UnknownProvider,
            CannotOpen,
            KeyNotKnown,
        ) as error:  # the registration, or the key, may come back
            log.error("journal.entry_unreadable", grant_id=str(entry.grant_id), reason=type(error).__name__)
            return False
        async with self._db.begin() as tx:
            grant = await store.find_by_id(tx, entry.grant_id)
        if grant is None:
            return True
        elapsed = entry.elapsed(self._clock.now()).total_seconds()
        run = Run(
            client, entry.claim(grant), tries=1, sent_at=self._clock.monotonic() - elapsed, took=entry.took
        )
        tokens = TokenSet(**json.loads(text))
        try:
            committed = await self._ledger.commit_late(run, tokens)
        except (CannotOpen, KeyNotKnown):  # what is stored: the grant's trouble, and no other entry's
            log.error("journal.entry_unsettled", grant_id=str(entry.grant_id))
            return False
        if committed is None:
            await self._revoker.discard(client, grant, tokens)
        log.warning("journal.replayed", grant_id=str(entry.grant_id), committed=committed is not None)
        return True


def _place(attempt_id: UUID, generation: int) -> Place:
    return Place("journal", attempt_id, "tokens", generation)
