"""The bill of materials (CycloneDX 1.6, JSON) of what requirements.lock installs: the service, without what tests it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from supply_chain.licences import licence_of
from supply_chain.lock import Locked

Json = dict[str, Any]


def sbom(pyproject: Path, locked: Sequence[Locked], installed: Mapping[str, Distribution]) -> Json:
    """The same for the same lock: it holds no time and no serial number. Licences and dependencies are those that the
    installed metadata tell."""
    project = tomllib.loads(pyproject.read_text())["project"]
    direct = [Requirement(each) for each in project["dependencies"]]
    needs = _needs(locked, installed, direct)
    by_name = {entry.name: entry for entry in locked}
    itself = f"pkg:pypi/{project['name']}@{project['version']}"
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": itself,
                "name": project["name"],
                "version": project["version"],
                "purl": itself,
            }
        },
        "components": [_component(entry, installed.get(entry.name)) for entry in locked],
        "dependencies": [
            {"ref": itself, "dependsOn": _refs(direct, by_name)},
            *({"ref": _ref(entry), "dependsOn": _refs(needs[entry.name], by_name)} for entry in locked),
        ],
    }


def write(path: Path, document: Json) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n")


def _component(entry: Locked, distribution: Distribution | None) -> Json:
    component: Json = {
        "type": "library",
        "bom-ref": _ref(entry),
        "name": entry.name,
        "version": entry.version,
        "purl": _ref(entry),
        # One for each file of the release that may be installed, by system and version of Python.
        "hashes": [{"alg": "SHA-256", "content": each.removeprefix("sha256:")} for each in entry.hashes],
    }
    licence = None if distribution is None else licence_of(distribution)
    if licence is not None:
        is_expression = " " in licence
        component["licenses"] = [{"expression": licence} if is_expression else {"license": {"id": licence}}]
    return component


def _needs(
    locked: Sequence[Locked], installed: Mapping[str, Distribution], direct: Sequence[Requirement]
) -> dict[str, list[Requirement]]:
    """What each needs here, with the extras that are asked of it anywhere."""
    told = {
        entry.name: [Requirement(each) for each in installed[entry.name].requires or []]
        if entry.name in installed
        else []
        for entry in locked
    }
    extras: dict[str, set[str]] = {name: {""} for name in told}
    for requirement in [*direct, *(each for several in told.values() for each in several)]:
        extras.setdefault(canonicalize_name(requirement.name), {""}).update(requirement.extras)
    return {
        name: [
            each
            for each in several
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras[name])
        ]
        for name, several in told.items()
    }


def _refs(needed: Sequence[Requirement], by_name: Mapping[str, Locked]) -> list[str]:
    names = {canonicalize_name(each.name) for each in needed} & by_name.keys()
    return sorted(_ref(by_name[name]) for name in names)


def _ref(entry: Locked) -> str:
    return f"pkg:pypi/{entry.name}@{entry.version}"
