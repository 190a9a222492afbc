"""A replica as a process, which remembers when it was out of service by our doing: a load balancer would have known."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import aiohttp

from tests.broker import ADMIN_KEY, ENCRYPTION_KEYS, ROTATIONS
from tests.faults.evidence import Down
from tests.faults.processes import REPOSITORY, Process, own_port

LEASE_SECONDS = 17.0
# The shortest lease there can be, and a provider's answer that may take a while on a busy machine.
_SETTINGS = {
    "ENVIRONMENT": "development",
    "ENCRYPTION_KEYS": ENCRYPTION_KEYS,
    "ADMIN_KEY": ADMIN_KEY,
    "ALLOW_LOOPBACK_UPSTREAMS": "true",
    "REFRESH_INTERVAL_SECONDS": "86400",
    "REFRESH_MARGIN_SECONDS": "2",
    "RETRY_BASE_SECONDS": "0.05",
    "UPSTREAM_TIMEOUT_SECONDS": "2.5",
    "LEASE_SECONDS": f"{LEASE_SECONDS:g}",
    "DRAIN_SECONDS": "18",
    **{f"CLIENTS__{name.upper()}__CLIENT_ID": "sandbox" for name in ROTATIONS},
    **{f"CLIENTS__{name.upper()}__CLIENT_SECRET": "sandbox-secret" for name in ROTATIONS},
}
# The service's own limits, where a scenario needs them as they are.
DEFAULT_LIMITS = {"UPSTREAM_TIMEOUT_SECONDS": "10", "LEASE_SECONDS": "25", "DRAIN_SECONDS": "30"}


class ReplicaProcess(Process):
    """Whoever starts it says by `serves` when it is ready again: before that nobody sends it anything."""

    def __init__(
        self,
        number: int,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str],
        folder: Path = REPOSITORY,
    ) -> None:
        super().__init__(command, log, environment=environment, folder=folder)
        self.downs: list[Down] = []  # the last one without an end while it lasts
        self._number = number
        self._is_stopped = False

    def pause(self) -> None:
        self._leaves(gently=False)
        self._is_stopped = True
        super().pause()

    def resume(self) -> None:
        super().resume()
        if self._is_stopped:
            self.serves()

    def kill(self) -> None:
        self._leaves(gently=False)
        super().kill()

    async def end(self, *, seconds: float = 40) -> int:
        self.resume()
        self._leaves(gently=True)
        return await super().end(seconds=seconds)

    def serves(self) -> None:
        """It is in service."""
        self._is_stopped = False
        if self._is_down:
            self.downs[-1] = replace(self.downs[-1], until=time.time())

    def _leaves(self, *, gently: bool) -> None:
        if not self._is_down:
            self.downs.append(Down(self._number, time.time(), math.inf, gently))

    @property
    def _is_down(self) -> bool:
        return bool(self.downs) and self.downs[-1].until == math.inf


class Replica:
    """A `broker serve`; started again it keeps its port and its settings."""

    def __init__(
        self, number: int, folder: Path, settings: Mapping[str, str], *, source: Path = REPOSITORY
    ) -> None:
        """`source`: the folder with the `app` that it runs."""
        port = own_port()
        self.number = number
        self.url = f"http://127.0.0.1:{port}"
        values = {**_SETTINGS, "PORT": str(port), "DATA_DIR": str(folder / f"var-{number}"), **settings}
        outside = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
        self.process = ReplicaProcess(
            number,
            [sys.executable, "-m", "app.cli", "serve"],
            folder / f"replica-{number}.log",
            environment={**outside, **{f"BROKER_{name.upper()}": value for name, value in values.items()}},
            folder=source,
        )

    async def start(self, *, seconds: float = 40) -> None:
        """Ready to answer when this returns."""
        self.process.start()
        await self.ready(seconds=seconds)

    async def ready(self, *, seconds: float = 40) -> None:
        """Raises AssertionError with its last words where it ends, and TimeoutError."""
        async with asyncio.timeout(seconds), aiohttp.ClientSession() as http:
            while True:
                assert self.process.is_running, f"the replica ended:\n{self.process.last_words()}"
                with suppress(aiohttp.ClientError, OSError):
                    async with http.get(self.url + "/health-check/ready") as answer:
                        if answer.status == 204:
                            self.process.serves()
                            return
                await asyncio.sleep(0.05)

    async def outstanding(self) -> int:
        """How many answers it says it holds that PostgreSQL does not have."""
        async with aiohttp.ClientSession() as http, http.get(self.url + "/health-check") as answer:
            return int((await answer.json())["checks"]["journal"]["facts"]["outstanding"])

    def owns(self, owner: str | None) -> bool:
        """Whether a claim is this process's: owners are `host-pid-nonce`."""
        return owner is not None and owner.split("-")[-2] == str(self.process.pid)
