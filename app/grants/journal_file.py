"""The files of the journal: own ones, locked and appended to, and those that dead replicas left. Blocks; raises OSError.

A file is only appended to, emptied, or left. It is left for a fresh one when too much in it is settled, and when a sync
of it failed: nobody knows then what of it is on disk. The fresh file gets all that is outstanding and is synced before
the old one is removed. So nothing is renamed, no file is unlocked while its owner lives, and a crash in between leaves
entries twice, which is harmless: a replay recognises an attempt that is committed.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from uuid import UUID

from app.grants.journal_record import Entry, decode_all, encode_done
from app.telemetry import logger

log = logger(__name__)
Sync = Callable[[int], None]

SUFFIX = ".journal"
_SETTLED_BYTES = 4 * 1024 * 1024  # of what is settled a file may hold, or as much as is outstanding
# As long as a large answer: where a few bytes fit, the next answer might not.
PROBE = encode_done(UUID(int=0)) * 1024
fdatasync: Sync = getattr(os, "fdatasync", os.fsync)  # macOS has none


@dataclass(frozen=True)
class Orphan:
    """A file of a replica that is no more, locked by us. `damaged` bytes of it cannot be read."""

    path: Path
    entries: Sequence[Entry]
    damaged: int
    fd: int


class Writer:
    """The own file of the moment. All of it runs in the journal's thread, but for `size`. Raises OSError."""

    def __init__(self, directory: Path, replica: str, sync: Sync) -> None:
        self._directory = directory
        self._replica = replica
        self._sync = sync
        self._numbers = count()  # no name is used twice
        self._file: _File | None = None

    @property
    def size(self) -> int:
        return self._file.size if self._file else 0

    def write(self, held: Sequence[bytes], frames: Sequence[bytes], *, is_durable: bool) -> None:
        """`frames` are on disk with all else of `held`, the frames outstanding; a probe where there are none.

        What is not `is_durable` is worth no effort: it is not synced, and left out where there is no sound file.
        """
        if is_durable:
            self._write_synced(held, b"".join(frames) or PROBE)
        elif held and self._file is not None and self._file.is_sound:
            self._file.append(b"".join(frames))
        if not held and self._file is not None:
            self._file.empty()

    def _write_synced(self, held: Sequence[bytes], frames: bytes) -> None:
        live = sum(map(len, held))
        if self._file is None or not self._file.is_usable():
            self._begin_anew(b"".join(held) or PROBE)
            return
        if self._file.size - live > max(_SETTLED_BYTES, live):
            with suppress(OSError):  # no room for two of them: the old one goes on
                self._begin_anew(b"".join(held))
                return
        self._file.append(frames, self._sync)

    def _begin_anew(self, frames: bytes) -> None:
        fresh = self._make()
        try:
            _sync_directory(self._directory)
            fresh.append(frames, self._sync)
        except OSError:
            fresh.remove()
            raise
        old, self._file = self._file, fresh
        if old is not None:
            old.remove()

    def _make(self) -> _File:
        if not self._directory.exists():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync_directory(self._directory.parent)
        for number in self._numbers:
            path = self._directory / f"{self._replica}{f'.{number}' if number else ''}{SUFFIX}"
            try:
                fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:  # a namesake's
                continue
            made = _File(path, fd)
            try:
                if _lock(path, fd):
                    return made
            except OSError:
                made.remove()
                raise
            os.close(fd)  # who looked for orphans was faster, and removes it
        raise AssertionError("numbers do not end")

    def close(self, *, remove: bool) -> None:
        if self._file is not None and remove:
            self._file.remove()
        elif self._file is not None:
            os.close(self._file.fd)
        self._file = None


class _File:
    """A locked file of our own. Not `is_sound` where nobody knows what of it is on disk."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.size = 0
        self.is_sound = True

    def is_usable(self) -> bool:
        return self.is_sound and _is_at(self.path, self.fd)  # somebody may have cleared the directory

    def append(self, frames: bytes, sync: Sync | None = None) -> None:
        try:
            left = memoryview(frames)
            while left:
                left = left[os.write(self.fd, left) :]
        except OSError:
            self._cut_back()
            raise
        self.size += len(frames)
        if sync is not None:
            # After an error the kernel may call the pages clean that it could not write: a second sync proves nothing.
            self.is_sound = False
            sync(self.fd)
            self.is_sound = True

    def _cut_back(self) -> None:
        """Half a frame is harmless to readers, but takes room where there may be none."""
        self.is_sound = False
        os.ftruncate(self.fd, self.size)
        self.is_sound = True

    def empty(self) -> None:
        if self.size:
            os.ftruncate(self.fd, 0)
            self.size = 0

    def remove(self) -> None:
        with suppress(OSError):  # left behind it is replayed, which changes nothing
            self.path.unlink()
        os.close(self.fd)


def take(path: Path) -> Orphan | None:
    """The file, locked, where its replica is no more and something in it has to be settled."""
    fd, orphan = -1, None
    try:
        fd = os.open(path, os.O_RDWR)
        if _lock(path, fd):
            orphan = _read(path, fd)
    except FileNotFoundError:
        pass  # somebody else settled it
    except OSError as error:
        log.error("journal.unreadable", file=path.name, reason=name_of(error))
    if orphan is None and fd >= 0:
        os.close(fd)
    return orphan


def _read(path: Path, fd: int) -> Orphan | None:
    """What is in it; a file with nothing to settle is removed at once."""
    with open(fd, "rb", closefd=False) as file:
        entries, damaged = decode_all(file.read())
    if (
        damaged
    ):  # one torn frame at the end is what a kill in mid-write leaves: nobody was told that it is safe
        log.warning("journal.damaged", file=path.name, bytes=damaged, entries=len(entries))
    if not entries:
        path.unlink(missing_ok=True)
        return None
    return Orphan(path, entries, damaged, fd)


def _lock(path: Path, fd: int) -> bool:
    """Whether the file is ours now, and still the one at `path`: its last owner may have removed it just before.

    flock, as it belongs to this opening of the file: the lock of fcntl belongs to the process, which would find its own
    files free, and lose the lock as soon as it closes any descriptor of the file.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return _is_at(path, fd)


def _is_at(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


def _sync_directory(directory: Path) -> None:
    """A new file is found after a power cut."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.EBADF}:  # some file systems cannot, and have nothing else
            raise
    finally:
        os.close(fd)


def name_of(error: OSError) -> str:
    """What is wrong, without the path."""
    return f"{errno.errorcode.get(error.errno or 0, type(error).__name__)}: {error.strerror}"
