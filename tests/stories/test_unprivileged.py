"""The service as its container runs it: another user than root, no capabilities, a file system that cannot be written."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, Replicas, bring

ROOT = Path(__file__).parents[2]
USER = 10001
# For an interpreter in a folder of root's: to read what it could not, and nothing else. In its container it needs none.
_READS = "-all,+dac_read_search"
# All of the file system is read-only but for `$0`; what follows is run as the user, who can gain nothing by any program.
_CONFINE = """
mount --make-rprivate / && mount --bind "$0" "$0" && mount -o remount,bind,ro / || exit 70
while read -r _ at _; do
    case "$at" in /tmp|/dev/shm|/run|/var/*) mount -o remount,bind,ro "$at" ;; esac
done < /proc/self/mounts
exec setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs \\
    --bounding-set=READS --inh-caps=READS --ambient-caps=READS "$@"
""".replace("READS", _READS)


def confined(writable: Path) -> list[str]:
    return ["unshare", "--mount", "sh", "-c", _CONFINE, str(writable)]


def _can_confine(writable: Path) -> bool:
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv", "mount"))):
        return False
    probe = [*confined(writable), sys.executable, "-c", "pass"]
    return subprocess.run(probe, stderr=subprocess.DEVNULL, check=False).returncode == 0


@pytest.fixture
def data_dir(shared_dir: Path) -> Path:
    folder = shared_dir / f"unprivileged-{uuid4().hex}"
    folder.mkdir(mode=0o700)
    os.chown(folder, USER if os.geteuid() == 0 else -1, -1)
    if not _can_confine(folder):
        pytest.skip("needs root, and unshare and setpriv: apt-get install util-linux")
    return folder


def require_few_rights(pid: int) -> None:
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [str(USER)] * 4 and fields["NoNewPrivs"] == "1"
    assert int(fields["CapEff"], 16) & ~(1 << 2) == 0  # CAP_DAC_READ_SEARCH at most


async def test_it_serves_where_it_may_write_its_data_folder_only(
    replicas: Replicas, data_dir: Path, sandbox: Sandbox
) -> None:
    replica = replicas.start(by=confined(data_dir), data_dir=str(data_dir))
    require_few_rights(replica.process.pid)
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with httpx.AsyncClient(base_url=replica.url, headers=headers) as http:
        (await http.put("/grants/sandbox/ada", json=bring(sandbox.grant("ada")))).raise_for_status()
        answer = await http.get("/tokens/sandbox/ada")
        assert (answer.status_code, answer.json()["generation"]) == (200, 2)
        health = (await http.get("/health-check")).json()
        assert (health["status"], health["checks"]["journal"]["status"]) == ("healthy", "healthy")
    assert {"journal"} <= set(os.listdir(data_dir)) <= {"journal", "audit-head", "audit-head.lock"}
    replica.terminate()
    assert await asyncio.to_thread(replica.wait) == 0


async def test_what_it_may_not_write_it_could_not_write(data_dir: Path) -> None:
    """The confinement itself, so that the test above says something."""
    tried = [str(ROOT / "app/planted"), "/tmp/planted", "/planted", str(data_dir.parent / "planted")]
    script = (
        "import sys\nfor path in sys.argv[1:]:\n try: open(path, 'x')\n except OSError as e: print(e.errno)"
    )
    command = [*confined(data_dir), sys.executable, "-c", script, *tried, str(data_dir / "written")]
    ran = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await ran.communicate()
    assert len(out.split()) == len(tried) and set(out.split()) <= {b"13", b"30"}, out
    assert (data_dir / "written").exists()
