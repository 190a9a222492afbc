"""Sealing anew: what was sealed under earlier data keys comes under the present one, while everything goes on.

Nothing is noted of how far it came: what is left is what its first bytes say is sealed under another key. So whoever was
stopped is followed by whoever starts, and two at once get in nobody's way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import accumulate
from uuid import UUID

from app.clock import Clock
from app.data_keys import rewrap_store, store
from app.data_keys.rewrap_store import SealedRow
from app.db import Database
from app.metrics import REWRAPPED
from app.telemetry import logger
from app.vault.seal import CannotOpen, key_id_of
from app.vault.vault import Vault

log = logger(__name__)

ON_ITS_WAY = timedelta(seconds=30)  # a commit of what was sealed under the key before may take so long
_FIRST = UUID(int=0)
_WINDOW = 20_000  # rows that one statement looks through


@dataclass(frozen=True)
class Progress:
    """So far. `unreadable` are values that do not open: they are left as they are, and named in the log."""

    table: str = ""
    done: int = 0
    unreadable: int = 0


class Rewrapper:
    """Works in small transactions, each of which holds its rows for some milliseconds."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        clock: Clock,
        *,
        batch: int = 200,
        most_bytes: int = 4 * 1024 * 1024,
        superseded_for: timedelta = timedelta(0),
        looks_twice: bool = False,
    ) -> None:
        """`batch` and `most_bytes`: rows of one transaction, and what they have sealed together; one that has more is alone.
        `superseded_for`: how long the present data key has to be in force before what is sealed under others is touched.
        Most of it is sealed anew by then of itself, with each refresh. `looks_twice`: also at what was found empty once.
        """
        self._superseded_for = superseded_for
        self._looks_twice = looks_twice
        self._unreadable: set[tuple[str, UUID]] = set()
        self._going: AsyncIterator[Progress] | None = None
        self._db = db
        self._vault = vault
        self._clock = clock
        self._batch = batch
        self._most_bytes = most_bytes

    async def left(self) -> dict[str, int]:
        """How many rows of each table are still to be sealed anew. Reads them all. Raises DatabaseUnavailable."""
        earlier, counts = await self._earlier(), {}
        for table in rewrap_store.sealed_tables() if earlier else ():
            counts[table] = sum([len(rows) async for rows in self._left_in(table, earlier)])
        return counts

    async def work(self) -> AsyncIterator[Progress]:
        """Seals all anew; how far it came, after each transaction, in which there may have been nothing to do. May be stopped
        at any time. Raises DatabaseUnavailable."""
        earlier = await self._earlier()
        if not earlier:
            return
        progress, before = Progress(), -1
        while progress.done != before:  # what was locked by somebody else is met in the next round
            before, self._unreadable = progress.done, set()
            for table in rewrap_store.sealed_tables():
                async for reached in self._through(table, earlier, replace(progress, table=table)):
                    progress = reached
                    yield progress
        progress = replace(progress, unreadable=len(self._unreadable))
        yield progress
        if await self._is_settled(earlier):
            async with self._db.begin() as tx:
                await store.note_emptied(tx, earlier)

    async def work_for(self, span: timedelta) -> None:
        """As far as it comes in that time, give or take a transaction; the next call goes on from there."""
        until = self._clock.monotonic() + span.total_seconds()
        going, self._going = self._going or self.work(), None
        async for _ in going:
            if self._clock.monotonic() >= until:
                self._going = going
                return
            await asyncio.sleep(0)

    async def _earlier(self) -> list[UUID]:
        """The data keys before the present one under which something may still be sealed."""
        async with self._db.begin() as tx:
            keys = await store.all_keys(tx)
        present = next(key for key in keys if key.id == self._vault.sealing_key)
        if self._clock.now() - present.active_at < self._superseded_for:
            return []
        return [
            key.id
            for key in keys
            if key.active_at < present.active_at and (key.emptied_at is None or self._looks_twice)
        ]

    async def _is_settled(self, earlier: Collection[UUID]) -> bool:
        """Whether nothing is left but what does not open, and nothing that was sealed before the present key was in force
        can still be on its way into the database."""
        async with self._db.begin() as tx:
            keys = await store.all_keys(tx)
        present = next(key for key in keys if key.id == self._vault.sealing_key)
        if self._clock.now() - present.active_at < ON_ITS_WAY:
            return False
        return sum((await self.left()).values()) <= len(self._unreadable)

    async def _left_in(self, table: str, earlier: Collection[UUID]) -> AsyncIterator[list[UUID]]:
        after = _FIRST
        while True:
            async with self._db.begin() as tx:
                until = await rewrap_store.end_of_window(tx, table, after=after, rows=_WINDOW)
                if until is None:
                    return
                found = await rewrap_store.ids_under(tx, table, earlier, after=after, until=until)
            yield found
            after = until

    async def _through(
        self, table: str, earlier: Collection[UUID], progress: Progress
    ) -> AsyncIterator[Progress]:
        """Once through the table, window by window: no statement reads more than one, however many rows there are."""
        after = until = _FIRST
        while True:
            async with self._db.begin() as tx:
                if after == until:
                    until = await rewrap_store.end_of_window(tx, table, after=after, rows=_WINDOW) or after
                    if until == after:
                        return
                sizes = await rewrap_store.sizes_under(
                    tx, table, earlier, after=after, until=until, limit=self._batch
                )
                ids = _within(self._most_bytes, sizes)
                rows = await rewrap_store.sealed_under(tx, table, earlier, ids) if ids else []
                anew = [sealed for row in rows if (sealed := self._anew(table, row, earlier)) is not None]
                if anew:
                    await rewrap_store.store_anew(tx, table, anew)
            after = until if len(ids) == len(sizes) < self._batch else ids[-1]
            REWRAPPED.inc(len(anew))
            progress = replace(progress, done=progress.done + len(anew))
            yield progress

    def _anew(self, table: str, row: SealedRow, earlier: Collection[UUID]) -> SealedRow | None:
        """The row with its values under the present key; None where one does not open."""
        values = dict(row.values)
        for name, sealed in row.values.items():
            if sealed is None or key_id_of(sealed) not in earlier:
                continue
            place = row.place(table, name)
            try:
                values[name] = self._vault.seal(self._vault.open(sealed, place), place)
            except CannotOpen as error:
                log.error("rewrap.unreadable", detail=str(error))
                self._unreadable.add((table, row.id))
                return None
        return replace(row, values=values)


def _within(most_bytes: int, sizes: Sequence[tuple[UUID, int]]) -> list[UUID]:
    """The first ones that have no more than that together, but one at least."""
    totals = accumulate(size for _, size in sizes)
    count = sum(total <= most_bytes for total in totals)
    return [id for id, _ in sizes[: max(1, count)]]
