"""The locks, `name==version ; marker --hash=...`, and what is installed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_HASH = re.compile(r"--hash=(\S+)")


@dataclass(frozen=True)
class Locked:
    """One entry. `hashes` are those of all its files, `sha256:<hex>`; `applies` tells whether this machine installs it."""

    name: str
    version: str
    hashes: tuple[str, ...]
    applies: bool


def read_lock(path: Path) -> list[Locked]:
    """Raises ValueError for an entry that names anything but one version."""
    text = path.read_text().replace("\\\n", " ")
    return [_entry(line) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _entry(line: str) -> Locked:
    requirement = Requirement(line.partition(" --hash=")[0].strip())
    versions = list(requirement.specifier)
    if len(versions) != 1 or versions[0].operator != "==" or requirement.url:
        raise ValueError(f"{requirement.name}: is not locked to one version")
    return Locked(
        name=canonicalize_name(requirement.name),
        version=versions[0].version,
        hashes=tuple(_HASH.findall(line)),
        applies=requirement.marker is None or requirement.marker.evaluate(),
    )


def installed(path: Iterable[Path] | None = None) -> dict[str, Distribution]:
    """By name; below these folders, or what this Python has."""
    found = distributions() if path is None else distributions(path=[str(folder) for folder in path])
    return {canonicalize_name(each.metadata["Name"]): each for each in found}
