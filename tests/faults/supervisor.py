"""`World`: everything a fault can be injected into, as processes, and all of it ended when the block is left.

async with World.running(replicas=2, rotation="strict") as world:
    users = await world.connect(20)
    world.postgres.crash()
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

import aiohttp

from app.embedded_host import free_port
from tests.broker import ADMIN_KEY, ENCRYPTION_KEYS, ROTATIONS, bring, write_providers
from tests.faults.evidence import Allowed, AttemptRow, Evidence, GrantRow
from tests.faults.invariants import SECRETS
from tests.faults.load import Load
from tests.faults.postgres import Postgres
from tests.faults.processes import Process
from tests.faults.provider import GRACE_SECONDS, AuthorizationServer, Rotation

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


class Replica:
    """A `broker serve`; started again it keeps its port and its settings."""

    def __init__(self, number: int, folder: Path, settings: Mapping[str, str]) -> None:
        port = free_port()
        self.number = number
        self.url = f"http://127.0.0.1:{port}"
        values = {**_SETTINGS, "PORT": str(port), "DATA_DIR": str(folder / f"var-{number}"), **settings}
        outside = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
        self.process = Process(
            [sys.executable, "-m", "app.cli", "serve"],
            folder / f"replica-{number}.log",
            environment={**outside, **{f"BROKER_{name.upper()}": value for name, value in values.items()}},
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
                            return
                await asyncio.sleep(0.05)

    def owns(self, owner: str | None) -> bool:
        """Whether a claim is this process's: owners are `host-pid-nonce`."""
        return owner is not None and owner.split("-")[-2] == str(self.process.pid)


class World:
    """PostgreSQL, the authorization server, and replicas on them."""

    def __init__(
        self,
        folder: Path,
        *,
        rotation: Rotation,
        replicas: int,
        settings: Mapping[str, str],
        postgres_on: Path | None,
    ) -> None:
        self.folder = folder
        self.rotation = rotation
        self.provider = next(name for name, rotates in ROTATIONS.items() if rotates == rotation)
        self.postgres = Postgres(postgres_on or folder / "postgres", log=folder / "postgres.log")
        self.authorization_server = AuthorizationServer(folder)
        providers = write_providers(folder / "providers", self.authorization_server.url)
        for file in providers.glob("graced.yaml"):
            file.write_text(
                file.read_text().replace("grace_seconds: 30", f"grace_seconds: {GRACE_SECONDS:g}")
            )
        common = {"DATABASE_URL": self.postgres.url, "PROVIDERS_DIR": str(providers), **settings}
        self.replicas = [
            Replica(number, folder, {"JOURNAL_DIR": str(folder / "journal"), **common})
            for number in range(replicas)
        ]
        self.withdrawn: set[str] = set()
        self.created_at = 0.0

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        *,
        rotation: Rotation = "strict",
        replicas: int = 2,
        postgres_on: Path | None = None,
        access_ttl: float = 30,
        delay: float = 0.03,
        settings: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Self]:
        """All of it started. `delay`: seconds that the provider takes, between processing and answering;
        `postgres_on`: a folder for its data, in place of one in the world's own."""
        world = cls(
            _folder(), rotation=rotation, replicas=replicas, settings=settings or {}, postgres_on=postgres_on
        )
        try:
            await world._start(access_ttl=access_ttl, delay=delay)
            yield world
        finally:
            await world._end()

    async def _start(self, *, access_ttl: float, delay: float) -> None:
        self.postgres.create()
        self.created_at = time.time()
        await asyncio.gather(self.postgres.start(), self.authorization_server.start())
        await self.authorization_server.control(
            settings={
                "rotation": self.rotation,
                "access_ttl": access_ttl,
                "grace_seconds": GRACE_SECONDS,
                "delay": delay,
            }
        )
        await asyncio.gather(*(replica.start() for replica in self.replicas))

    async def _end(self) -> None:
        """By pid, and in no order: nothing here has to survive."""
        for replica in self.replicas:
            replica.process.kill()
        self.authorization_server.resume()
        self.postgres.abandon()
        await self.authorization_server.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def mend(self) -> None:
        """Everything goes on and is running again, whatever an earlier scenario left behind."""
        self.authorization_server.resume()
        self.postgres.resume()
        if not self.postgres.is_running:
            await self.postgres.start()
        for replica in self.replicas:
            replica.process.resume()
            if not replica.process.is_running:
                await replica.start()

    def pids(self) -> list[int]:
        """Of all that runs at this moment."""
        started = [replica.process.pid for replica in self.replicas]
        return [*started, *self.postgres.pids(), self.authorization_server.pid]

    @property
    def urls(self) -> list[str]:
        return [replica.url for replica in self.replicas]

    def load(self, users: list[str], *, seed: int, forced: float = 0.8) -> Load:
        return Load(self.urls, self.provider, users, seed=seed, forced=forced)

    async def connect(self, count: int, *, prefix: str = "user", expires_in: int = -1) -> list[str]:
        """So many users whose grants are imported; by default their access tokens have just expired."""
        users = [f"{prefix}-{number}" for number in range(count)]
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {ADMIN_KEY}"}) as http:
            for user in users:
                body = bring(await self.authorization_server.grant(user), expires_in=expires_in)
                url = f"{self.urls[0]}/grants/{self.provider}/{user}"
                async with http.put(url, json=body) as answer:
                    assert answer.status == 201, await answer.text()
        self.authorization_server.look()
        return users

    async def withdraw(self, user: str) -> None:
        """The user ends it at the provider."""
        self.withdrawn.add(user)
        await self.authorization_server.revoke(user)

    async def grants(self, users: Collection[str]) -> list[GrantRow]:
        """Their rows, tombstones included."""
        rows = await self.postgres.query(
            "SELECT id::text, user_id AS user, status, reconnect_reason, generation,"
            " refresh_fingerprint AS fingerprint, attempt_id::text, owner,"
            " extract(epoch FROM takeover_at - clock_timestamp())::float AS takeover_in FROM grants"
            " WHERE user_id = ANY($1)",
            list(users),
        )
        return [GrantRow(**row) for row in rows]

    async def evidence(self, load: Load, *, unsettled: frozenset[str], allowed: Allowed) -> Evidence:
        """All there is of the load's users, now; the provider's counters are those since their last reset."""
        grants = await self.grants(load.users)
        attempts = await self.postgres.query(
            "SELECT grant_id::text, lineage_id::text, outcome, generation FROM refresh_attempts"
            " WHERE grant_id = ANY($1::uuid[]) ORDER BY at",
            [row.id for row in grants],
        )
        return Evidence(
            answers=tuple(load.answers),
            upstream=await self.authorization_server.evidence(),
            grants=grants,
            attempts=[AttemptRow(**row) for row in attempts],
            written=await asyncio.to_thread(self._written),
            withdrawn=frozenset(self.withdrawn),
            unsettled=unsettled,
            collected_at=time.time(),
            allowed=allowed,
        )

    def _written(self) -> dict[str, bytes]:
        """Of each file that we or PostgreSQL wrote, what looks like a secret; the provider's own files aside."""
        skipped = {self.folder / "authorization-server.json", self.folder / "authorization-server.json.tmp"}
        found = {}
        for path in self.folder.rglob("*"):
            with suppress(OSError):
                if path in skipped or not path.is_file() or path.stat().st_mtime < self.created_at:
                    continue
                matches = re.findall(SECRETS, path.read_bytes())
                found[str(path.relative_to(self.folder))] = b" ".join(matches)
        return found


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="broker-faults-"))
    folder.chmod(0o755)  # PostgreSQL's own user has to pass
    (folder / "journal").mkdir(mode=0o700)
    return folder
