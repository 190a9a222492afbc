"""The README's commands do what it says."""

from __future__ import annotations

import asyncio
import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.sandbox.server import Sandbox
from tests.broker import free_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

pytestmark = [
    pytest.mark.skipif(shutil.which("make") is None, reason="needs make: apt-get install make"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl: apt-get install curl"),
]


@contextmanager
def _make_run(data_dir: Path, command: str = "make run", *, port: int | None = None) -> Iterator[str]:
    """`make run` in a session of its own, ended as by Ctrl-C; yields what it printed until it was ready."""
    environment = {**os.environ, "BROKER_PORT": str(port or free_port()), "BROKER_DATA_DIR": str(data_dir)}
    process = subprocess.Popen(
        ["sh", "-c", command],
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


def test_the_readme_seeds_a_private_database(shared_dir: Path) -> None:
    [command] = re.findall(r"^    (\.venv/bin/broker bench seed [^#\n]+)", README, re.MULTILINE)
    command = command.replace("1000000", "100").replace(".venv/bin/broker", f"{sys.executable} -m app.cli")
    environment = {"BROKER_ENVIRONMENT": "development", "BROKER_DATA_DIR": str(shared_dir / "seeded")}
    ran = subprocess.run(
        ["sh", "-c", command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.startswith("100 of 100 grants, "), ran.stderr


async def test_the_readme_leads_from_nothing_to_a_token_of_ones_own_provider(
    shared_dir: Path, sandbox: Sandbox
) -> None:
    folder, port = shared_dir / "own-provider", free_port()
    chapters = README.split("\n## ")
    [chapter] = [text for text in chapters if text.startswith("Connect your own provider")]
    here = {
        "https://login.acme.example": sandbox.url,
        "my-client-id": "sandbox",
        "my-client-secret": "sandbox-secret",
        "127.0.0.1:8080": f"127.0.0.1:{port}",
        "var/": f"{folder}/",
    }
    for name, value in here.items():
        assert name in chapter
        chapter = chapter.replace(name, value)
    commands = re.findall(r"^```sh\n(.*?)^```", chapter, flags=re.MULTILINE | re.DOTALL)
    assert len(commands) < 10
    token = await asyncio.to_thread(_walk, commands, folder, port)  # the sandbox answers meanwhile
    assert token["access_token"].startswith("sat_")
    assert (token["provider"], token["user_id"]) == ("acme", "user-42")


def _walk(commands: list[str], folder: Path, port: int) -> dict[str, Any]:
    """What the last command answers, each of them having been run, and a browser between the last two."""
    *before, start, key, register, authorize, fetch = commands
    assert "make run" in start
    _shell(*before)
    with _make_run(folder, start, port=port):
        _shell(key, register)
        _agree(json.loads(_shell(key, authorize))["authorization_url"])
        token: dict[str, Any] = json.loads(_shell(key, fetch))
    return token


def _shell(*commands: str) -> str:
    """What the last of the commands prints; they share one shell."""
    text = "\n".join(commands).replace("curl ", "curl -fsS ")
    return subprocess.run(["sh", "-e", "-c", text], capture_output=True, text=True, check=True).stdout


def _agree(authorization_url: str) -> None:
    """What a user does in a browser: signs in at the sandbox, and allows."""
    with httpx.Client(follow_redirects=True) as browser:
        page = browser.get(authorization_url)
        hidden = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page.text)
        fields = {html.unescape(name): html.unescape(value) for name, value in hidden}
        form = {**fields, "user": "ada", "decision": "allow"}
        assert "is connected" in browser.post(str(page.url).partition("?")[0], data=form).text
