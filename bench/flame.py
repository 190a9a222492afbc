"""`python -m bench.flame NAME`: flame graphs of the service, hot-NAME.svg and refresh-NAME.svg in docs/performance.

py-spy samples the threads that hold the interpreter: what the service computes, not what it waits for.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from bench.grants import PROVIDER, bring_due_ones, bring_fresh
from bench.load import Load
from bench.stage import Stage, port_of
from tests.broker import ADMIN_KEY, Replica

FOLDER = Path(__file__).parents[1] / "docs" / "performance"
_RATE = 250
_PROVIDER_SECONDS = 0.05
_REFRESHES_A_SECOND = 1000  # more than there will be


@contextmanager
def _recorded(replica: Replica, path: Path, title: str, seconds: int) -> Iterator[None]:
    py_spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if py_spy is None:
        sys.exit("py-spy is not installed: `make bench-flame` does it")
    options = [
        "--format",
        "flamegraph",
        "--gil",
        "--function",
        "--rate",
        f"{_RATE}",
        "--duration",
        f"{seconds}",
    ]
    with tempfile.TemporaryDirectory() as folder:
        recorded = Path(folder) / path.name
        command = [py_spy, "record", *options, "--pid", f"{replica.process.pid}", "--output", str(recorded)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as recording:
            yield
            if recording.wait():
                sys.exit("py-spy has failed: it may need the right to trace (root, or CAP_SYS_PTRACE)")
        path.write_text(without_places(recorded.read_text(), title))


def without_places(svg: str, title: str) -> str:
    """Titled, and without a path of the machine that made it: files are named from their package on."""
    svg = re.sub(r'(<text id="title"[^>]*>)[^<]*', rf"\g<1>{title}", svg)
    return re.sub(r"\((?:/[^():<>]*)?/(?:site-packages|lib/python3\.\d+)/", "(", svg)


def hot(stage: Stage, replica: Replica, path: Path, seconds: int) -> None:
    """One token, fetched again and again."""
    bring_fresh(stage.url, ["hot-0"])
    headers = stage.consumer(replica, "hot")
    load = Load(port_of(replica), f"/tokens/{PROVIDER}/hot-0", headers=headers, seconds=seconds + 2.0)
    stage.driver.send(Load(**{**load.as_json(), "seconds": 2.0}))
    with (
        stage.driver.connected(load),
        _recorded(
            replica, path, "A fetch of a token that is good: GET /tokens/{provider}/{user_id}", seconds
        ),
    ):
        stage.driver.finish()


def refresh(stage: Stage, replica: Replica, path: Path, seconds: int) -> None:
    """Grants that are due, refreshed by what the scheduler runs."""
    stage.provider(delay=_PROVIDER_SECONDS)
    bring_due_ones(stage.url, [f"due-{number}" for number in range(seconds * _REFRESHES_A_SECOND)])
    admin = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with (
        httpx.Client(base_url=replica.url, headers=admin, timeout=seconds) as http,
        _recorded(replica, path, "Refreshes of grants that are due", seconds),
    ):
        try:
            http.post("/refresh/run")
        except httpx.ReadTimeout:
            return
        sys.exit("All grants were refreshed before the recording was over")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.flame", description="Flame graphs of the service.")
    parser.add_argument("name", help="of this state of it, such as `before`")
    parser.add_argument("--seconds", type=int, default=12, help="of each recording")
    args = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    kinds: tuple[Callable[[Stage, Replica, Path, int], None], ...] = (hot, refresh)
    with Stage.running() as stage:
        replica = stage.service(refresh_margin_seconds="60")
        for kind in kinds:
            kind(stage, replica, FOLDER / f"{kind.__name__}-{args.name}.svg", args.seconds)


if __name__ == "__main__":
    main()
