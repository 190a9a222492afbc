"""The supply chain is what the locks say, and whatever is wrong with it is seen: offline, by the check that CI runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from supply_chain import checks
from supply_chain.__main__ import ADVISORIES, LICENCES, ROOT, SERVICE, found, judged
from supply_chain.licences import is_allowed
from supply_chain.lock import Locked, installed, read_lock
from supply_chain.sbom import sbom

ALLOWED = frozenset({"MIT", "Apache-2.0"})
HASH = "sha256:" + "0" * 64


def locked(
    name: str, version: str = "1.2", *, hashes: tuple[str, ...] = (HASH,), applies: bool = True
) -> Locked:
    return Locked(name, version, hashes, applies)


def plant(folder: Path, name: str, version: str = "1.2", licence: str = "License-Expression: MIT") -> None:
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir()
    (place / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{licence}\n")


def test_nothing_is_wrong_with_what_is_here() -> None:
    assert list(found()) == []


def test_the_lock_is_read_whole() -> None:
    entries = read_lock(SERVICE)
    text = SERVICE.read_text()
    assert len(entries) == len(re.findall("^[a-zA-Z]", text, re.MULTILINE)) > 40
    assert sum(len(entry.hashes) for entry in entries) == text.count("--hash=") > 500
    assert {entry.name for entry in entries if not entry.applies} >= {"colorama"}


@pytest.mark.parametrize("hashes", [(), ("md5:" + "0" * 64,), ("sha256:00",)])
def test_a_locked_package_without_its_hash_is_seen(hashes: tuple[str, ...]) -> None:
    assert list(checks.hashes([locked("good"), locked("bad", hashes=hashes)])) == [
        "bad 1.2: is locked without a SHA-256"
    ]


@pytest.mark.parametrize("line", ["loose>=1.0", "loose", "loose==1.*,<2", "loose @ file:///tmp/loose.whl"])
def test_a_lock_that_names_no_version_is_not_read(tmp_path: Path, line: str) -> None:
    (tmp_path / "some.lock").write_text(f"{line} \\\n    --hash={HASH}\n")
    with pytest.raises(ValueError, match="loose: is not locked to one version"):
        read_lock(tmp_path / "some.lock")


def test_what_is_installed_and_not_locked_is_seen(tmp_path: Path) -> None:
    for name in ("named", "stray", "pip"):
        plant(tmp_path, name)
    plant(tmp_path, "older", "1.1")
    entries = [locked("named"), locked("older"), locked("absent"), locked("elsewhere", applies=False)]
    assert list(checks.installation(entries, installed([tmp_path]))) == [
        "older: 1.1 is installed, and 1.2 is locked",
        "stray 1.2: is installed, and no lock names it",
        "absent 1.2: is locked, and not installed",
    ]


def test_a_dependency_that_is_not_locked_is_seen(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text(
        '[project]\ndependencies = ["Some_Thing >=1", "other[extra] >=2", "missing; python_version > \'3\'"]\n'
    )
    assert list(checks.direct(project, [locked("some-thing"), locked("other")])) == [
        "other: the project needs >=2, and 1.2 is locked",
        "missing: the project needs it, and it is not locked",
    ]


def test_a_licence_that_is_not_on_the_list_is_seen(tmp_path: Path) -> None:
    plant(tmp_path, "good")
    plant(tmp_path, "old", licence="Classifier: License :: OSI Approved :: Apache Software License")
    plant(tmp_path, "strict", licence="License-Expression: AGPL-3.0-only")
    plant(tmp_path, "silent", licence="Summary: nothing")
    assert list(checks.licences(installed([tmp_path]), ALLOWED)) == [
        "silent: its metadata tell no licence",
        "strict: its licence AGPL-3.0-only is not on the list",
    ]


@pytest.mark.parametrize(
    ("expression", "is_fine"),
    [
        ("MIT", True),
        ("MIT AND Apache-2.0", True),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only OR MPL-2.0", False),
        ("MIT OR GPL-3.0-only AND MPL-2.0", False),
        ("(MIT)", False),
    ],
)
def test_of_several_licences_those_count_that_bind(expression: str, is_fine: bool) -> None:
    assert is_allowed(expression, ALLOWED) is is_fine


def advisory(**affected: Any) -> dict[str, Any]:
    package = {"ecosystem": "PyPI", "name": "Some_Thing"}
    return {"id": "PYSEC-1", "summary": "Bad.", "affected": [{"package": package, **affected}]}


def in_range(*events: dict[str, str], kind: str = "ECOSYSTEM") -> dict[str, Any]:
    return advisory(ranges=[{"type": kind, "events": list(events)}])


@pytest.mark.parametrize(
    ("known", "is_hit"),
    [
        (advisory(versions=["1.1", "1.2.0"]), True),
        (advisory(versions=["1.1"]), False),
        (in_range({"introduced": "0"}), True),
        (in_range({"introduced": "0"}, {"fixed": "1.3"}), True),
        (in_range({"introduced": "0"}, {"fixed": "1.2"}), False),
        (in_range({"introduced": "0"}, {"last_affected": "1.2"}), True),
        (in_range({"introduced": "0"}, {"last_affected": "1.1"}), False),
        (in_range({"introduced": "1.3"}), False),
        (in_range({"fixed": "1.1"}, {"introduced": "1.2"}, {"introduced": "0"}), True),
        (in_range({"introduced": "0"}, kind="GIT"), False),
        ({**advisory(versions=["1.2"]), "withdrawn": "2026-01-01T00:00:00Z"}, False),
    ],
)
def test_a_version_with_a_known_advisory_is_seen(known: dict[str, Any], is_hit: bool) -> None:
    entries = [locked("some-thing"), locked("other")]
    assert list(checks.advisories(entries, [known])) == (["some-thing 1.2: PYSEC-1 Bad."] if is_hit else [])


def test_an_advisory_in_the_folder_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("supply_chain.__main__.ADVISORIES", tmp_path)
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]
    fastapi = {"package": {"ecosystem": "PyPI", "name": "fastapi"}, "ranges": ranges}
    (tmp_path / "PYSEC-2.json").write_text(json.dumps({"id": "PYSEC-2", "affected": [fastapi]}))
    assert [line.partition(" ")[0] for line in found()] == ["fastapi"]
    assert ADVISORIES.is_dir()


def test_an_audit_that_could_ask_nobody_is_no_good_news() -> None:
    fine = {"name": "fine", "version": "1", "vulns": []}
    bad = {"name": "bad", "version": "1", "vulns": [{"id": "PYSEC-3", "fix_versions": ["2"]}]}
    skipped = {"name": "skipped", "skip_reason": "not found"}
    for dependencies, told in (
        ([fine], ([], [])),
        ([fine, bad, skipped], (["bad 1: PYSEC-3, fixed in 2"], ["skipped"])),
        ([fine, skipped], ([], ["skipped"])),
        ([skipped], ([], None)),
        ([], ([], None)),
    ):
        assert judged(json.dumps({"dependencies": dependencies})) == told
    assert judged("") == judged("[]") == judged("{}") == ([], None)


def test_the_bill_of_materials_names_exactly_what_the_lock_names() -> None:
    entries = read_lock(SERVICE)
    document = json.loads(json.dumps(sbom(ROOT / "pyproject.toml", entries, installed())))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    components = document["components"]
    assert [(each["name"], each["version"]) for each in components] == [
        (entry.name, entry.version) for entry in entries
    ]
    listed = frozenset(LICENCES.read_text().split())
    for component, entry in zip(components, entries, strict=True):
        assert [f"sha256:{each['content']}" for each in component["hashes"]] == list(entry.hashes)
        if entry.applies:
            [told] = component["licenses"]
            assert is_allowed(told.get("expression") or told["license"]["id"], listed)
    refs = [each["bom-ref"] for each in components]
    assert len(set(refs)) == len(refs)
    itself = document["metadata"]["component"]["bom-ref"]
    dependencies = {each["ref"]: each["dependsOn"] for each in document["dependencies"]}
    assert dependencies.keys() == {itself, *refs}
    assert {needed for each in dependencies.values() for needed in each} <= set(refs)
    reached: set[str] = set()
    waiting = [itself]
    while waiting:
        new = set(dependencies[waiting.pop()]) - reached
        reached |= new
        waiting += new
    unreached = {ref for ref, entry in zip(refs, entries, strict=True) if entry.applies} - reached
    assert {ref.partition("@")[0] for ref in unreached} <= {"pkg:pypi/flit-core"}  # it builds the project
