"""Verifies the trail against the chain, the chain against its anchors, and grants against their history."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from app.audit import chain_store, findings, verification_store
from app.audit.chain import EMPTY, PRUNING_PURPOSE, PURPOSE, Head, pruned_proof
from app.audit.findings import Finding, Verdict
from app.audit.pruning import PRUNED
from app.audit.walk import LATE, Walk
from app.db import Database, Tx
from app.vault.seal import CannotOpen
from app.vault.vault import Vault

_AT_ONCE = 2000
_KEPT = 100
_BEFORE_ALL = UUID(int=0)


class Verifier:
    """Reads only, everything in one snapshot. Memory stays flat, however long the trail is."""

    def __init__(self, db: Database, vault: Vault, *, kept: int = _KEPT) -> None:
        """`kept`: so many findings are told one by one."""
        self._db = db
        self._vault = vault
        self._kept = kept
        self._keys: dict[tuple[str, UUID], bytes | None] = {}

    async def verify(self, anchors: Mapping[str, Head]) -> Verdict:
        """`anchors`: places that the chain is known to have passed, read before, by where that is known from.

        Raises DatabaseUnavailable.
        """
        found = _Findings(self._kept)
        async with self._db.begin() as tx:
            await verification_store.freeze(tx)
            beginning = await chain_store.beginning(tx)
            walk = Walk(beginning or EMPTY, anchors, lambda key_id: self._key(PURPOSE, key_id))
            await self._walk(tx, walk, found)
            if beginning is None or not await self._is_proven(tx, beginning):
                found.add([findings.beginning_unproven(beginning or EMPTY)])
            waiting = await self._unlinked(tx, walk.latest_at, found)
            await self._grants(tx, found)
        return Verdict(walk.place, beginning or EMPTY, walk.events, waiting, tuple(found.kept), found.number)

    async def _walk(self, tx: Tx, walk: Walk, found: _Findings) -> None:
        while links := await verification_store.links(tx, after=walk.place.sequence, limit=_AT_ONCE):
            for link in links:
                found.add(walk.step(link))
        found.add(walk.end(await chain_store.head(tx)))

    async def _is_proven(self, tx: Tx, beginning: Head) -> bool:
        if beginning == EMPTY:
            return True
        prunings = await verification_store.prunings(tx, action=PRUNED, sequence=beginning.sequence)
        return any(self._proves(pruning, beginning) for pruning in prunings)

    def _proves(self, pruning: Mapping[str, Any], beginning: Head) -> bool:
        try:
            key = self._key(PRUNING_PURPOSE, UUID(pruning["key_id"]))
            events, before = int(pruning["events"]), datetime.fromisoformat(pruning["before"])
            proof = str(pruning["proof"])
        except (KeyError, TypeError, ValueError):
            return False
        if key is None:
            return False
        return hmac.compare_digest(
            proof.encode(), pruned_proof(key, beginning, events=events, before=before).encode()
        )

    async def _unlinked(self, tx: Tx, latest_at: datetime | None, found: _Findings) -> int:
        """How many events wait to be chained."""
        waiting, after = 0, _BEFORE_ALL
        while True:
            last, events = await verification_store.unlinked(tx, after=after, limit=_AT_ONCE)
            for event in events:
                waiting += event.waits
                if not event.waits:
                    found.add([findings.unchained(event.id, event.at, event.action)])
                elif latest_at is not None and event.at < latest_at - LATE:
                    found.add([findings.pretended(event.id, event.at, event.action, latest_at)])
            if last is None:
                break
            after = last
        found.add(map(findings.lost_in_wait, await verification_store.lost_in_wait(tx, limit=self._kept)))
        return waiting

    async def _grants(self, tx: Tx, found: _Findings) -> None:
        after = _BEFORE_ALL
        while True:
            last, older = await verification_store.older_grants(tx, after=after, limit=_AT_ONCE)
            found.add(findings.rolled_back(grant.id, grant.generation, grant.known) for grant in older)
            if last is None:
                return
            after = last

    def _key(self, purpose: str, key_id: UUID) -> bytes | None:
        if (purpose, key_id) not in self._keys:
            try:
                self._keys[purpose, key_id] = self._vault.derived_key(purpose, key_id)[1]
            except CannotOpen:
                self._keys[purpose, key_id] = None
        return self._keys[purpose, key_id]


class _Findings:
    """The first of them, and how many there are."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.kept: list[Finding] = []
        self.number = 0

    def add(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.number += 1
            if len(self.kept) < self._most:
                self.kept.append(finding)
