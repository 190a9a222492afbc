"""The state file: what of the state must survive a restart, as JSON, in one file."""

from __future__ import annotations

import json
import os
from pathlib import Path

from app.sandbox.state import State


class StateFile:
    """Keeps a state on disk. The file is replaced whole, so that a crash leaves the old or the new one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved_changes = 0

    def load(self, state: State) -> None:
        """Takes over what an earlier process saved; nothing, where there is no file.

        Raises `ValueError` where the file is not one of ours.
        """
        if not self._path.exists():
            return
        try:
            state.restore(json.loads(self._path.read_text()))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self._path} is no state file of the sandbox") from error

    def save(self, state: State) -> None:
        """Writes the state where it changed since the last time; readable by its owner only."""
        if state.changes == self._saved_changes:
            return
        draft = self._path.with_name(f"{self._path.name}.tmp")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            os.fchmod(file.fileno(), 0o600)  # a draft left by a crash keeps its own mode
            json.dump(state.dump(), file)
        os.replace(draft, self._path)
        self._saved_changes = state.changes
