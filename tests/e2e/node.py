"""Node and the npm packages of `oidc/`, installed once a machine from the registry that npm is set up with."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "oidc"
_LOCK = FOLDER / "package-lock.json"
_MODULES = FOLDER / "node_modules"
_INSTALLED = _MODULES / ".installed"  # `npm ci` begins by removing the folder, and this with it


def installed() -> Path:
    """The Node to run `oidc/server.mjs` with, its packages being what the lock file says.

    Skips the test where npm is missing. Raises AssertionError where it fails.
    """
    wanted = hashlib.sha256(_LOCK.read_bytes()).hexdigest()
    with _LOCK.open() as lock:  # one worker at a time; the others find the work done
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _INSTALLED.exists() or _INSTALLED.read_text() != wanted:
            _install()
            _INSTALLED.write_text(wanted)
    return _node()


def _install() -> None:
    if shutil.which("npm") is None:
        pytest.skip("needs npm: apt-get install npm")
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    ended = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{' '.join(command)}:\n{ended.stdout}{ended.stderr}"


def _node() -> Path:
    """The one that came as a package for this processor; npm leaves out those for others."""
    found = next(_MODULES.glob("node-linux-*/bin/node"), None) or shutil.which("node")
    assert found is not None, "oidc/package.json has no Node for this machine, and none is installed"
    return Path(found)
