"""What must hold of the supply chain. Each check answers sentences, one for each thing that is wrong."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from supply_chain.licences import is_allowed, licence_of
from supply_chain.lock import Locked

# What every venv has, and the project itself.
UNLOCKED = frozenset({"pip", "setuptools", "wheel", "token-broker"})
_DIGITS = len("sha256:") + 64


def hashes(locked: Sequence[Locked]) -> Iterator[str]:
    """Each entry has at least one SHA-256, and nothing else."""
    for entry in locked:
        wrong = [each for each in entry.hashes if not each.startswith("sha256:") or len(each) != _DIGITS]
        if wrong or not entry.hashes:
            yield f"{entry.name} {entry.version}: is locked without a SHA-256"


def installation(locked: Sequence[Locked], installed: Mapping[str, Distribution]) -> Iterator[str]:
    """What is installed is what is locked, no less and no more."""
    versions = {entry.name: entry.version for entry in locked if entry.applies}
    for name, distribution in sorted(installed.items()):
        if name in UNLOCKED:
            continue
        if name not in versions:
            yield f"{name} {distribution.version}: is installed, and no lock names it"
        elif Version(distribution.version) != Version(versions[name]):
            yield f"{name}: {distribution.version} is installed, and {versions[name]} is locked"
    for name in sorted(versions.keys() - installed.keys()):
        yield f"{name} {versions[name]}: is locked, and not installed"


def direct(pyproject: Path, locked: Sequence[Locked]) -> Iterator[str]:
    """Each dependency of the project is locked, to a version that the project takes."""
    versions = {entry.name: entry.version for entry in locked}
    for text in tomllib.loads(pyproject.read_text())["project"]["dependencies"]:
        requirement = Requirement(text)
        version = versions.get(canonicalize_name(requirement.name))
        if version is None:
            yield f"{requirement.name}: the project needs it, and it is not locked"
        elif not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name}: the project needs {requirement.specifier}, and {version} is locked"


def licences(installed: Mapping[str, Distribution], allowed: frozenset[str]) -> Iterator[str]:
    """Each licence is told, and on the list."""
    for name, distribution in sorted(installed.items()):
        licence = licence_of(distribution)
        if name in UNLOCKED:
            continue
        if licence is None:
            yield f"{name}: its metadata tell no licence"
        elif not is_allowed(licence, allowed):
            yield f"{name}: its licence {licence} is not on the list"


def advisories(locked: Sequence[Locked], known: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """None of the known ones (OSV's format) is about a version that is locked."""
    for advisory in known:
        if advisory.get("withdrawn"):
            continue
        for affected in advisory.get("affected", []):
            package = affected["package"]
            if package["ecosystem"] != "PyPI":
                continue
            for entry in locked:
                if entry.name == canonicalize_name(package["name"]) and _is_affected(entry.version, affected):
                    yield f"{entry.name} {entry.version}: {advisory['id']} {advisory.get('summary', '')}".rstrip()


def _is_affected(version: str, affected: Mapping[str, Any]) -> bool:
    """As in OSV's specification: named itself, or in a range, by the last event before it."""
    if any(Version(each) == Version(version) for each in affected.get("versions", [])):
        return True
    return any(
        _is_in(version, each["events"]) for each in affected.get("ranges", []) if each["type"] == "ECOSYSTEM"
    )


def _is_in(version: str, events: Sequence[Mapping[str, str]]) -> bool:
    """`introduced` begins a range, `fixed` ends it before, `last_affected` behind that version."""
    inside = False
    for event in sorted(events, key=lambda event: Version(next(iter(event.values())))):
        kind, at = next(iter(event.items()))
        if Version(version) < Version(at) or (kind == "last_affected" and Version(version) == Version(at)):
            continue
        inside = kind == "introduced"
    return inside
