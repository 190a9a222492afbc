"""`python -m tests.faults.sandbox --port N --state FILE`: the hostile authorization server, which writes FILE upon SIGUSR1.

As a command of its own it writes all it knows after each change, which is what limits it after some thousand refreshes;
nothing here kills it, so it may keep that in its memory until somebody wants to see it.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys
from pathlib import Path

from app.sandbox.authorize import Desk
from app.sandbox.server import DEFAULT_CLIENTS, Sandbox
from app.sandbox.state import State
from app.sandbox.storage import StateFile


async def serve(port: int, path: Path) -> None:
    """Serves until SIGTERM."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    state = State(clients=dict(DEFAULT_CLIENTS), changes=1)  # that it knows nothing yet is to be seen too
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: StateFile(path).save(state))
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    url = f"http://127.0.0.1:{port}"
    sandbox = Sandbox(url, Desk(state, url), None)
    await sandbox.listen(listener)
    sys.stdout.write(f"sandbox listening on {url}\n")
    sys.stdout.flush()
    await ended.wait()
    await sandbox.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--state", type=Path, required=True)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port, arguments.state))
