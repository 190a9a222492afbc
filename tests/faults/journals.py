"""The replicas' journals, read from outside while they are written: what was in them at any time, and what is left."""

from __future__ import annotations

import re
from base64 import b64decode
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from app.grants.journal_file import SUFFIX
from app.grants.journal_record import Entry, decode_all
from tests.faults.invariants import SECRETS

_SEALED = re.compile(rb'"sealed":"((?:[A-Za-z0-9+/]{4})+={0,2})"')


class Journals:
    """Those in one folder, whosever they are. Takes no lock, and so gets in nobody's way.

    `entries` are all that were seen before they were settled, by attempt; `secrets` what was in the files, or sealed to
    be in them, and should not have been readable.
    """

    def __init__(self, folder: Path) -> None:
        self.entries: dict[UUID, Entry] = {}
        self.secrets: set[bytes] = set()
        self._folder = folder
        self._read: dict[Path, int] = {}  # bytes of each file that were looked at

    def look(self) -> None:
        """At what is new in each file since the last look."""
        for path in self._folder.glob(f"*{SUFFIX}"):
            with suppress(FileNotFoundError):  # it was settled just now
                self._look_at(path)

    def outstanding(self) -> dict[str, int]:
        """How many entries of each file are not settled."""
        counted = {}
        for path in self._folder.glob(f"*{SUFFIX}"):
            with suppress(FileNotFoundError):
                counted[path.name] = len(decode_all(path.read_bytes()).entries)
        return counted

    def _look_at(self, path: Path) -> None:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            begin = self._read.get(path, 0)
            file.seek(begin if begin <= size else 0)  # a file with nothing outstanding is emptied
            new = file.read()
            self._read[path] = file.tell()
        self.entries |= {entry.attempt_id: entry for entry in decode_all(new).entries}
        for written in (new, *map(b64decode, re.findall(_SEALED, new))):
            self.secrets.update(re.findall(SECRETS, written))
