"""What reads the OpenAPI document from outside: programs of the venv that `make test` keeps for them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_BIN = ROOT / ".venv-tools/bin"


def run_tool(
    name: str, *arguments: str, cwd: Path, environment: Mapping[str, str] | None = None, seconds: float = 100
) -> subprocess.CompletedProcess[str]:
    """Runs a program of the tools' venv to its end; `stdout` holds both of its outputs.

    Skips the test where the venv is missing.
    """
    program = _BIN / name
    if not program.exists():
        pytest.skip(f"needs {program.relative_to(ROOT)}: `make test` installs it")
    path = os.pathsep.join((str(_BIN), os.environ.get("PATH", "")))
    return subprocess.run(
        [str(program), *arguments],
        cwd=cwd,
        env={**os.environ, "PATH": path, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
