"""The import contracts are in force: each is seen to break when something breaks it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# For each contract a line that breaks it, and the module that would hold the line.
VIOLATIONS = {
    "One direction": ("app/vault/seal.py", "import app.grants.grant"),
    "Nouns are pure": ("app/grants/schedule.py", "import app.clock"),
    "SQL lives in stores": ("app/grants/ledger.py", "import app.tables"),
    "Only stores know SQLAlchemy": ("app/grants/validate.py", "import sqlalchemy"),
    "Grants' stores are their own domain's": ("app/connect/connect.py", "import app.grants.store"),
    "Connect's store is its own domain's": ("app/jobs.py", "import app.connect.store"),
    "Calendars' stores are their own domain's": ("app/jobs.py", "import app.calendars.store"),
    "Deliveries' stores are their own domain's": ("app/jobs.py", "import app.deliveries.store"),
    "Consumers' store is its own domain's": ("app/jobs.py", "import app.consumers.store"),
    "Clients' store is its own domain's": ("app/jobs.py", "import app.clients.store"),
    "Breakers' store is its own domain's": ("app/jobs.py", "import app.breakers.store"),
    "Data keys' stores are their own domain's": ("app/jobs.py", "import app.data_keys.store"),
    "The chain's stores are its own domain's": ("app/jobs.py", "import app.audit.chain_store"),
    "Only edges know frameworks": ("app/grants/refresh.py", "import fastapi"),
    "HTTP goes out through one door": ("app/connect/connect.py", "import httpx"),
    "Only the composition root reads settings": ("app/api/tokens.py", "import app.settings"),
    "The sandbox stands alone": ("app/sandbox/state.py", "import app.errors"),
}


def _broken_contracts(tree: Path) -> set[str]:
    finished = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    return set(re.findall(r"^(.+) BROKEN", finished.stdout, flags=re.MULTILINE))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "app", tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_has_a_violation_here() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert {contract["name"] for contract in declared} == set(VIOLATIONS)


def test_the_contracts_hold(tree: Path) -> None:
    assert _broken_contracts(tree) == set()


def test_each_contract_breaks_when_it_is_broken(tree: Path) -> None:
    for module, line in VIOLATIONS.values():
        with (tree / module).open("a") as source:
            source.write(f"\n{line}\n")
    assert _broken_contracts(tree) == set(VIOLATIONS)
