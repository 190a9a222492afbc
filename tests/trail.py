"""An audit trail of a test's own: events, a sealer and a verifier, without the rest of the broker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from app.audit import store
from app.audit.anchor import Anchor, anchors_of
from app.audit.chain import Head
from app.audit.event import AuditEvent
from app.audit.findings import Finding, Verdict
from app.audit.sealing import Sealer
from app.audit.verify import Verifier
from app.clock import SystemClock
from app.data_keys.keeper import DataKeys, unlocked
from app.db import Database
from app.vault.vault import Vault
from tests.postgres import database
from tests.vault import PROMPT, keys_of_tests


class Trail:
    """`anchor` is the file that its sealer keeps."""

    def __init__(self, url: str, db: Database, vault: Vault, keys: DataKeys, anchor: Path) -> None:
        self.url = url
        self.db = db
        self.vault = vault
        self.keys = keys
        self.anchor = anchor
        self.clock = SystemClock()
        self.sealer = self.new_sealer()

    @classmethod
    @asynccontextmanager
    async def of(cls, url: str, folder: Path) -> AsyncIterator[Trail]:
        db = Database(url, pool_size=4)
        async with database(url) as owner:
            is_new = await owner.fetchval("SELECT count(*) = 0 FROM data_keys")
            vault, keys = await unlocked(db, keys_of_tests(), SystemClock(), policy=PROMPT)
            if is_new:  # that the first data key was made is on record
                await owner.execute("TRUNCATE audit_events, audit_unchained")
        try:
            yield cls(url, db, vault, keys, folder / "audit-head")
        finally:
            await db.close()

    def new_sealer(self) -> Sealer:
        """As another replica on the same folder has it."""
        return Sealer(self.db, self.vault, Anchor(self.anchor), self.clock)

    async def record(self, number: int = 1, **event: Any) -> None:
        async with self.db.begin() as tx:
            for count in range(number):
                told = AuditEvent(**{"action": "test.done", "details": {"count": count}, **event})
                await store.record(tx, told, now=self.clock.now())

    async def seal(self) -> Head:
        """Chains everything; where the chain ends."""
        await self.sealer.seal()
        return self.sealer.head

    async def execute(self, *statements: str) -> None:
        """Past the service, as whoever owns the database can."""
        async with database(self.url) as connection:
            for statement in statements:
                await connection.execute(statement)

    async def rows(self, query: str) -> list[Any]:
        async with database(self.url) as connection:
            return list(await connection.fetch(query))

    async def event_at(self, sequence: int) -> UUID:
        [row] = await self.rows(f"SELECT event_id FROM audit_chain WHERE sequence = {sequence}")
        return UUID(str(row["event_id"]))

    async def verify(self, *, head: str | None = None, anchored: bool = True) -> Verdict:
        anchors = anchors_of(self.anchor if anchored else self.anchor.with_suffix(".none"), head)
        return await Verifier(self.db, self.vault, kept=10_000).verify(anchors)

    async def findings(self, *, head: str | None = None, anchored: bool = True) -> Sequence[Finding]:
        return (await self.verify(head=head, anchored=anchored)).findings
