"""The journal: answers of token endpoints, kept on disk from the moment they arrive until PostgreSQL has them.

append    written and synced when it returns; all who wait at that moment share one write and one fdatasync
done      taken back lazily; with nothing outstanding the file is emptied
orphans   what replicas left that are no more: their files are free of locks
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from app.clock import Clock
from app.errors import Overloaded
from app.grants.journal_file import PROBE, SUFFIX, Orphan, Sync, Writer, fdatasync, name_of, take
from app.grants.journal_record import Entry, decode_all, encode, encode_done
from app.telemetry import logger

log = logger(__name__)
T = TypeVar("T")

MAX_BYTES = 64 * 1024 * 1024
_PROBE_EVERY_SECONDS = 1.0


class JournalUnavailable(Overloaded):
    """What a provider answers cannot be kept safe, so nothing should be asked that can be asked only once."""

    def __init__(self) -> None:
        super().__init__(
            "Answers of providers cannot be kept safe right now. Try again shortly.", retry_after=2
        )


@dataclass
class _Held:
    """An entry that is not settled. What could not be written goes with the next synced write."""

    frame: bytes
    since: float  # monotonic seconds
    on_disk: bool = False


class Journal:
    """One replica's journal, in a directory that replicas of one machine or volume share.

    Belongs to one event loop and never blocks it: one thread touches the files.
    """

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        *,
        replica: str,
        within: timedelta = timedelta(seconds=1),
        max_bytes: int = MAX_BYTES,
        sync: Sync = fdatasync,
    ) -> None:
        """`replica` is part of a file's name, `within` bounds each call, `max_bytes` what is not settled."""
        self._directory = directory
        self._clock = clock
        self._within = within.total_seconds()
        self._max_bytes = max_bytes
        self._writer = Writer(directory, replica, sync)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._held: dict[UUID, _Held] = {}
        self._held_bytes = 0
        self._settled: list[UUID] = []
        self._waiting: list[asyncio.Future[bool]] = []
        self._writing: asyncio.Task[None] | None = None
        self._error: str | None = "it was not opened"
        self._is_closed = False
        self._probe_at = 0.0

    async def open(self) -> None:
        """Makes the directory (0700) and in it an own file (0600), locked for the life of the process.

        Raises JournalUnavailable where it cannot; what is mended later, `check` finds.
        """
        await self._durable()

    async def append(self, entry: Entry) -> None:
        """The entry is on disk. May be repeated until it is `done`, which has to follow, even after an error.

        Raises JournalUnavailable where that cannot be had in time. The entry is held all the same, unless there is no
        room for it, and may be on disk now or later.
        """
        frame = encode(entry)
        self._forget(entry.attempt_id)
        if self._held_bytes + len(frame) > self._max_bytes:
            raise JournalUnavailable
        self._held[entry.attempt_id] = _Held(frame, self._clock.monotonic())
        self._held_bytes += len(frame)
        await self._durable()

    def done(self, attempt_id: UUID) -> None:
        """The entry needs no replay any more. A crash may forget that; unknown ones are ignored."""
        if self._forget(attempt_id):
            self._settled.append(attempt_id)
            self._wake()

    async def check(self) -> None:
        """Raises JournalUnavailable while it cannot be written. Costs nothing while it can; after a failure one caller
        a second finds out with a write."""
        now = self._clock.monotonic()
        if self._error is not None and now >= self._probe_at:
            self._probe_at = now + _PROBE_EVERY_SECONDS
            await self._durable()
        if not self.is_writable:
            raise JournalUnavailable

    @property
    def last_error(self) -> str | None:
        """Why it is not writable, for operators; None where it is."""
        if self._error is None and self._held_bytes + len(PROBE) > self._max_bytes:
            return f"{len(self._held)} entries fill it that are not committed"
        return self._error

    @property
    def is_writable(self) -> bool:
        return self.last_error is None

    @property
    def outstanding(self) -> int:
        """Entries that are not settled."""
        return len(self._held)

    @property
    def size(self) -> int:
        """Bytes in the own file, settled ones too."""
        return self._writer.size

    def unsettled(self, older_than_seconds: float) -> list[Entry]:
        """Own entries held for so long, the oldest first. With more seconds than a commit may take, none of them is
        being committed."""
        before = self._clock.monotonic() - older_than_seconds
        return decode_all(
            b"".join(held.frame for held in self._held.values() if held.since <= before)
        ).entries

    async def orphans(self) -> AsyncGenerator[Orphan, None]:
        """The files of replicas that are no more, each given to one process at a time.

        A file is the caller's until the next is asked for. What is not `settled` by then, the next who looks gets.
        """
        for path in await self._in_thread(lambda: sorted(self._directory.glob(f"*{SUFFIX}"))):
            orphan = await self._in_thread(partial(take, path))
            if orphan is None:
                continue
            try:
                yield orphan
            finally:
                os.close(orphan.fd)  # which frees the lock

    async def settled(self, orphan: Orphan) -> None:
        """Removes the file, all of whose entries are settled. Only while it is the caller's."""
        await self._in_thread(partial(orphan.path.unlink, missing_ok=True))

    async def close(self) -> None:
        """Removes the own file where nothing is outstanding; else it stays for whoever comes next. May be repeated."""
        if self._is_closed:
            return
        if not all(held.on_disk for held in self._held.values()):
            with suppress(JournalUnavailable):
                await self._durable()
        self._is_closed = True
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=self._within)
        ending = asyncio.ensure_future(self._in_thread(partial(self._writer.close, remove=not self._held)))
        await asyncio.wait({ending}, timeout=self._within)
        self._thread.shutdown(wait=False)  # a disk that hangs is not waited for

    def _forget(self, attempt_id: UUID) -> bool:
        held = self._held.pop(attempt_id, None)
        self._held_bytes -= len(held.frame) if held else 0
        return held is not None

    async def _durable(self) -> None:
        """All that is held is on disk. Raises JournalUnavailable where it is not, in time."""
        if self._is_closed:
            raise JournalUnavailable
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._wake()
        await asyncio.wait({waiter}, timeout=self._within)
        if not waiter.done():
            self._judge(f"a write takes longer than {self._within:g} s")
        if not waiter.done() or not waiter.result():
            raise JournalUnavailable

    def _wake(self) -> None:
        if not self._is_closed and (self._writing is None or self._writing.done()):
            self._writing = asyncio.create_task(self._write_all())

    async def _write_all(self) -> None:
        """One write at a time; those who come meanwhile share the next."""
        while self._waiting or self._settled:
            waiting, self._waiting = self._waiting, []
            is_good = await self._write(is_durable=bool(waiting))
            for waiter in waiting:
                waiter.set_result(is_good)

    async def _write(self, *, is_durable: bool) -> bool:
        held, settled, self._settled = list(self._held.values()), self._settled, []
        new = [one for one in held if is_durable and not one.on_disk]
        frames = [*(one.frame for one in new), *map(encode_done, settled)]
        began = self._clock.monotonic()
        try:
            await self._in_thread(
                partial(self._writer.write, [one.frame for one in held], frames, is_durable=is_durable)
            )
        except OSError as error:
            self._judge(name_of(error))
            return False
        for one in new:
            one.on_disk = True
        if is_durable:
            took = self._clock.monotonic() - began
            self._judge(None if took <= self._within else f"a write took {took:.1f} s")
        return True

    def _judge(self, error: str | None) -> None:
        if error is not None and error != self._error:
            log.error("journal.unavailable", reason=error, outstanding=len(self._held))
        elif error is None and self._error is not None:
            log.info("journal.writable", outstanding=len(self._held))
        self._error = error

    def _in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)
