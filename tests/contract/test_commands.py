"""The README's commands do what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.broker import free_port

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(shutil.which("make") is None, reason="needs make: apt-get install make"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl: apt-get install curl"),
]


@contextmanager
def _make_run(data_dir: Path) -> Iterator[str]:
    """`make run` in a session of its own, ended as by Ctrl-C; yields what it printed until it was ready."""
    environment = {**os.environ, "BROKER_PORT": str(free_port()), "BROKER_DATA_DIR": str(data_dir)}
    process = subprocess.Popen(
        ["make", "--no-print-directory", "run"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    printed = ""
    try:
        while "Ctrl-C stops everything" not in printed:
            line = process.stdout.readline()
            assert line, f"it ended early:\n{printed}"
            printed += line
        yield printed
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=40)


def _run_printed_curl(printed: str) -> dict[str, Any]:
    command = re.search(r"^  (curl .+)$", printed, flags=re.MULTILINE)
    assert command is not None, printed
    finished = subprocess.run(["sh", "-c", f"{command[1]} -sS"], capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


def _is_gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.05)
    return False


def test_make_run_serves_a_token_and_ctrl_c_leaves_nothing_and_a_second_run_finds_its_data(
    shared_dir: Path,
) -> None:
    data_dir = shared_dir / "make-run"
    with _make_run(data_dir) as printed:
        first = _run_printed_curl(printed)
        postmaster = int((data_dir / "postgres/data/postmaster.pid").read_text().split()[0])
    assert _is_gone(postmaster)
    with _make_run(data_dir) as printed:
        second = _run_printed_curl(printed)
    assert first["access_token"].startswith("sat_")
    assert first["grant_id"] == second["grant_id"]
