"""PyPI `myworld` as a process of its own: calendars behind Google's API, which nobody here wrote.

It is installed once a machine, from the registry that pip is set up with, into an environment of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import yaml

from tests.broker import free_port
from tests.e2e.waiting import eventually

FOLDER = Path(__file__).parent / "myworld"
_LOCK = FOLDER / "requirements.lock"
_ENVIRONMENT = FOLDER / ".venv"
_INSTALLED = _ENVIRONMENT / ".installed"
_FIRST = datetime(2026, 12, 1, 9, tzinfo=UTC)


def installed() -> Path:
    """The folder of the commands, its packages being what the lock file says.

    Skips the test where they cannot be installed: no `venv`, or no registry that has them.
    """
    wanted = hashlib.sha256(_LOCK.read_bytes() + sys.version.encode()).hexdigest()
    with _LOCK.open() as lock:  # one worker at a time; the others find the work done
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _INSTALLED.exists() or _INSTALLED.read_text() != wanted:
            _install()
            _INSTALLED.write_text(wanted)
    return _ENVIRONMENT / "bin"


def _install() -> None:
    try:
        venv.create(_ENVIRONMENT, clear=True, with_pip=True)
    except (ImportError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs venv with pip: apt-get install python3-venv ({error})")
    pip = [str(_ENVIRONMENT / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install"]
    command = [*pip, "--require-hashes", "--no-deps", "--only-binary=:all:", "--requirement", str(_LOCK)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No matching distribution" in ended.stderr:  # no registry, or one that does not have them
        pytest.skip(f"needs the packages of {_LOCK.name}: {ended.stderr.strip().splitlines()[-1]}")
    assert ended.returncode == 0, f"{' '.join(command)}:\n{ended.stdout}{ended.stderr}"


@contextmanager
def running(commands: Path, *, events: int, folder: Path) -> Iterator[str]:
    """The URL of a host with the world of `world.yaml` and so many events more in Ada's calendar, until the block ends."""
    world = folder / "world.yaml"
    world.write_text(yaml.safe_dump(_world(events)))
    port = free_port()
    log = folder / "myworld.log"
    command = ["serve", "--host", "127.0.0.1", "--port", str(port), "--env", str(world), "--time", "realtime"]
    with log.open("wb") as output:
        process = subprocess.Popen([str(commands / "myworld"), *command], stdout=output, stderr=output)
    try:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: _answers(url) or process.poll() is not None, seconds=60)
        assert process.poll() is None, f"myworld ended:\n{log.read_text()}"
        yield url
    finally:
        process.terminate()
        process.wait(20)


class Calendar:
    """One person's own calendar, as that person has it before them: no access token of ours is needed."""

    def __init__(self, url: str, email: str) -> None:
        people = httpx.get(f"{url}/envs/calendars").raise_for_status().json()["credentials"].values()
        (token,) = [each["google_access_token"] for each in people if each["email"] == email]
        self._http = httpx.Client(
            base_url=f"{url}/gw/www.googleapis.com/calendar/v3/calendars/primary",
            headers={"Authorization": f"Bearer {token}"},
        )

    def close(self) -> None:
        self._http.close()

    def add(self, summary: str, start: datetime, **fields: Any) -> str:
        """An hour of it; its id."""
        times = {"start": _time(start), "end": _time(start + timedelta(hours=1))}
        return cast(str, self._done("POST", "/events", {"summary": summary, **times, **fields})["id"])

    def change(self, event_id: str, **fields: Any) -> None:
        self._done("PATCH", f"/events/{event_id}", fields)

    def cancel(self, event_id: str) -> None:
        self._http.delete(f"/events/{event_id}").raise_for_status()

    def rows(self) -> dict[str, tuple[str, str]]:
        """What is there now, by ids: its etag and its status. Series are their rules: `myworld` keeps exceptions to
        itself."""
        page = self._done("GET", "/events?maxResults=2500")
        assert "nextSyncToken" in page
        return {each["id"]: (each["etag"], each["status"]) for each in page["items"]}

    def _done(self, method: str, path: str, fields: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self._http.request(method, path, json=fields).raise_for_status()
        return cast(dict[str, Any], answer.json())


def _time(moment: datetime) -> dict[str, str]:
    return {"dateTime": moment.isoformat(), "timeZone": "UTC"}


def _world(events: int) -> dict[str, Any]:
    world: dict[str, Any] = yaml.safe_load((FOLDER / "world.yaml").read_text())
    world["now"] = datetime.now(UTC).isoformat()  # with `wallclock` it would move the events as well
    seed = world["servers"]["calendar"]["seed"]
    for number in range(events):
        start = _FIRST + timedelta(hours=number)
        end = start + timedelta(minutes=30)
        seed["events"].append(
            {"summary": f"Event {number:04}", "start": start.isoformat(), "end": end.isoformat()}
        )
    return world


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/envs/calendars").status_code == 200
    except httpx.TransportError:
        return False
