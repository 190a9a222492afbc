"""The head of the chain in a file: a chain alone does not show that its end was cut off, or that all of it was replaced."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

from app.audit.chain import Head
from app.errors import ValidationFailed


class Anchor:
    """`BROKER_DATA_DIR/audit-head`: `<sequence>:<hash>`, readable by its owner only. Replicas may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Head | None:
        """None where there is none yet. Raises OSError, and ValueError where it is damaged."""
        try:
            return Head.parse(self._path.read_text(encoding="ascii"))
        except FileNotFoundError:
            return None

    def move(self, head: Head) -> bool:
        """Writes `head`, unless what is there is further on. A crash leaves the old one or the new one.

        False where somebody else is at it, who is not waited for: a process may be paused in here. It sees `head` itself
        when it looks again.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("w") as lock:
            try:  # of two replicas that share the folder, one at a time
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            present = self.read()
            if present is None or present.sequence < head.sequence:
                self._replace(head)
        return True

    def _replace(self, head: Head) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{head}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)


def anchors_of(path: Path, noted: str | None) -> Mapping[str, Head]:
    """What the file says, if there is one, and a head that was noted elsewhere, by where they are from.

    Raises ValidationFailed where one of them is damaged.
    """
    anchors: dict[str, Head] = {}
    try:
        if (kept := Anchor(path).read()) is not None:
            anchors[f"The file {path}"] = kept
    except (OSError, ValueError) as error:
        raise ValidationFailed("The anchor cannot be read.", fields={str(path): str(error)}) from None
    if noted is not None:
        try:
            anchors["--head"] = Head.parse(noted)
        except ValueError as error:
            raise ValidationFailed("The head cannot be read.", fields={"--head": str(error)}) from None
    return anchors
