"""`python -m supply_chain check` fails where anything is wrong; `sbom` writes sbom.json; `audit` asks for advisories."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from supply_chain import checks
from supply_chain.lock import installed, read_lock
from supply_chain.sbom import sbom, write

ROOT = Path(__file__).parents[1]
SERVICE, DEVELOPMENT = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"
BENCH = ROOT / "requirements-bench.lock"  # has a venv of its own
LICENCES, ADVISORIES = (
    Path(__file__).with_name("allowed-licences.txt"),
    Path(__file__).with_name("advisories"),
)
_AUDIT = ("tool", "run", "--from", "pip-audit==2.10.1", "pip-audit", "--disable-pip", "--require-hashes")


def found() -> Iterator[str]:
    """All that is wrong, of this Python's installation and of what lies beside this package."""
    service, development, bench = read_lock(SERVICE), read_lock(DEVELOPMENT), read_lock(BENCH)
    locked = list({entry.name: entry for entry in (*development, *service)}.values())
    here = installed()
    yield from checks.hashes([*service, *development, *bench])
    for others, what in ((development, "tests"), (bench, "the bench")):
        versions = {(entry.name, entry.version) for entry in others}
        yield from (
            f"{entry.name} {entry.version}: is locked in another version for {what}"
            for entry in service
            if (entry.name, entry.version) not in versions
        )
    yield from checks.installation(locked, here)
    yield from checks.direct(ROOT / "pyproject.toml", service)
    yield from checks.licences(here, frozenset(LICENCES.read_text().split()))
    known = [json.loads(path.read_text()) for path in sorted(ADVISORIES.glob("*.json"))]
    yield from checks.advisories([*locked, *(entry for entry in bench if entry not in locked)], known)


def check() -> int:
    wrong = list(found())
    print("\n".join(wrong) or "The supply chain is as it should be.")
    return 1 if wrong else 0


def audit() -> int:
    """0: of everything that is locked it is known that there is no advisory. 1: there are some, which are told. 2: of some
    nobody could be asked, which is no good news."""
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), *_AUDIT, "--format", "json", "--requirement", str(SERVICE)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    wrong, unasked = judged(ran.stdout)
    if wrong:
        print("\n".join(wrong))
        return 1
    if unasked is None:
        print(
            "Advisories could not be asked for: this needs a network that leads to them. `check` goes by the folder"
        )
        print(f"{ADVISORIES.relative_to(ROOT)}/ alone.")
        return 2
    print("No advisory is known." if not unasked else f"Nobody knew of: {', '.join(unasked)}.")
    return 2 if unasked else 0


def judged(report: str) -> tuple[list[str], list[str] | None]:
    """What pip-audit's JSON says: advisories, and whose could not be asked for; None: anybody's."""
    try:
        dependencies = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return [], None
    wrong = [
        f"{each['name']} {each['version']}: {advisory['id']}, fixed in {', '.join(advisory['fix_versions']) or 'none'}"
        for each in dependencies
        for advisory in each.get("vulns", [])
    ]
    unasked = [each["name"] for each in dependencies if "skip_reason" in each]
    return wrong, None if len(unasked) == len(dependencies) else unasked


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m supply_chain", description=__doc__)
    parser.add_argument("command", choices=("check", "sbom", "audit"))
    command = parser.parse_args().command
    if command == "sbom":
        write(ROOT / "sbom.json", sbom(ROOT / "pyproject.toml", read_lock(SERVICE), installed()))
        return 0
    return check() if command == "check" else audit()


if __name__ == "__main__":
    sys.exit(main())
