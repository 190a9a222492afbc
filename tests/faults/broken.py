"""`Sabotage`: one place in which the service is broken on purpose, and a build that is broken there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.processes import REPOSITORY
from tests.faults.scenario import Scenario

_OUR_OWN = ("app", "migrations")


@dataclass(frozen=True)
class Sabotage:
    """`text` of `file`, which is below `app/`, replaced such that `invariant` does not hold in the `scenario`."""

    invariant: str
    what: str
    file: str
    text: str
    replacement: str
    scenario: Scenario

    def broken(self) -> str:
        """The file as it is in the broken build. Raises ValueError where the text is not there exactly once."""
        source = (REPOSITORY / "app" / self.file).read_text()
        if (count := source.count(self.text)) != 1:
            raise ValueError(f"app/{self.file} has this {count} times, which had to be once: {self.text!r}")
        return source.replace(self.text, self.replacement)

    @contextmanager
    def build(self, *, intact: bool = False) -> Iterator[Path]:
        """The folder of the broken build, for the length of the block."""
        with tempfile.TemporaryDirectory(prefix="broker-sabotage-") as folder:
            for name in _OUR_OWN:
                shutil.copytree(REPOSITORY / name, Path(folder, name), ignore=shutil.ignore_patterns("*.pyc"))
            if not intact:
                Path(folder, "app", self.file).write_text(self.broken())
            yield Path(folder)
