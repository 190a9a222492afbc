"""`World`: everything a fault can be injected into, as processes, and all of it ended when the block is left.

async with World.running(replicas=2, rotation="strict") as world:
    users = await world.connect(20)
    world.postgres.crash()
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

import aiohttp

from tests.broker import ADMIN_KEY, ROTATIONS, bring, write_providers
from tests.faults.evidence import Allowed, AttemptRow, Departure, Evidence, GrantRow, Journaled
from tests.faults.invariants import SECRETS
from tests.faults.journals import Journals
from tests.faults.load import Load
from tests.faults.postgres import Postgres, Storage
from tests.faults.processes import REPOSITORY
from tests.faults.provider import GRACE_SECONDS, AuthorizationServer, Rotation
from tests.faults.replica import Replica

REPLAYED_WITHIN = 20.0  # seconds: what waited for PostgreSQL is committed some seconds after it is back


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
        storage: Callable[..., Storage],
        source: Path,
    ) -> None:
        self.folder = folder
        self.rotation = rotation
        self.provider = next(name for name, rotates in ROTATIONS.items() if rotates == rotation)
        self.postgres = storage(postgres_on or folder / "postgres", log=folder / "postgres.log")
        self.authorization_server = AuthorizationServer(folder)
        providers = write_providers(folder / "providers", self.authorization_server.url)
        for file in providers.glob("graced.yaml"):
            file.write_text(
                file.read_text().replace("grace_seconds: 30", f"grace_seconds: {GRACE_SECONDS:g}")
            )
        given = {"JOURNAL_DIR": str(folder / "journal"), "PROVIDERS_DIR": str(providers), **settings}
        common = {**self.postgres.settings, **given}
        self.replicas = [Replica(number, folder, common, source=source) for number in range(replicas)]
        self.journals = Journals(Path(given["JOURNAL_DIR"]))
        self.withdrawn: set[str] = set()
        self.departures: list[Departure] = []
        self.created_at = 0.0
        self.delay = 0.0

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        *,
        rotation: Rotation = "strict",
        replicas: int = 2,
        postgres_on: Path | None = None,
        storage: Callable[..., Storage] = Postgres,
        access_ttl: float = 30,
        delay: float = 0.03,
        settings: Mapping[str, str] | None = None,
        source: Path = REPOSITORY,
    ) -> AsyncIterator[Self]:
        """All of it started. `delay`: seconds that the provider takes, between processing and answering;
        `postgres_on`: a folder for its data, in place of one in the world's own; `storage`: what stands there; `source`:
        the build that the replicas run."""
        world = cls(
            _folder(),
            rotation=rotation,
            replicas=replicas,
            settings=settings or {},
            postgres_on=postgres_on,
            storage=storage,
            source=source,
        )
        try:
            await world._start(access_ttl=access_ttl, delay=delay)
            yield world
        finally:
            await world._end()

    async def _start(self, *, access_ttl: float, delay: float) -> None:
        self.postgres.create()
        self.created_at, self.delay = time.time(), delay
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
        """So many users whose grants are imported, in place of those they have; by default their access tokens have just
        expired."""
        users = [f"{prefix}-{number}" for number in range(count)]
        slots = asyncio.Semaphore(8)

        async def bring_one(http: aiohttp.ClientSession, user: str) -> None:
            async with slots:
                body = bring(await self.authorization_server.grant(user), expires_in=expires_in)
                url = f"{self.urls[0]}/grants/{self.provider}/{user}"
                async with http.put(url, json=body) as answer:
                    assert answer.status in (200, 201), await answer.text()

        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {ADMIN_KEY}"}) as http:
            await asyncio.gather(*(bring_one(http, user) for user in users))
        self.authorization_server.look()
        return users

    async def end(self, replica: Replica) -> None:
        """SIGTERM, and how it ended is noted. PostgreSQL has to be there."""
        code = await replica.process.end()
        owners = await self.postgres.query("SELECT owner FROM grants WHERE lease_until IS NOT NULL")
        left = sum(replica.owns(row["owner"]) for row in owners)
        self.departures.append(Departure(replica.number, code, left))

    async def withdraw(self, user: str) -> None:
        """The user ends it at the provider."""
        self.withdrawn.add(user)
        await self.authorization_server.revoke(user)

    async def grants(self, users: Collection[str]) -> list[GrantRow]:
        """Their rows, tombstones included."""
        rows = await self.postgres.query(
            "SELECT id::text, user_id AS user, status, reconnect_reason, generation, lineage_id::text, failures,"
            " refresh_fingerprint AS fingerprint, attempt_id::text, owner,"
            " extract(epoch FROM takeover_at - clock_timestamp())::float AS takeover_in FROM grants"
            " WHERE user_id = ANY($1)",
            list(users),
        )
        return [GrantRow(**row) for row in rows]

    async def evidence(self, load: Load, *, unsettled: frozenset[str], allowed: Allowed) -> Evidence:
        """All there is of the load's users, now; the provider's counters are those since their last reset."""
        outstanding = await self._outstanding()
        grants = await self.grants(load.users)
        attempts = await self.postgres.query(
            "SELECT grant_id::text, lineage_id::text, outcome, generation, id::text, provider_code AS code"
            " FROM refresh_attempts WHERE grant_id = ANY($1::uuid[]) ORDER BY at",
            [row.id for row in grants],
        )
        candidates = await self.postgres.query("SELECT id::text FROM grant_candidates")
        return Evidence(
            answers=tuple(load.answers),
            upstream=await self.authorization_server.evidence(),
            grants=grants,
            attempts=[AttemptRow(**row) for row in attempts],
            journaled=list(self._journaled({row.id for row in grants})),
            outstanding=outstanding,
            candidates=frozenset(row["id"] for row in candidates),
            written=await asyncio.to_thread(self._written),
            withdrawn=frozenset(self.withdrawn),
            unsettled=unsettled,
            downs=[down for replica in self.replicas for down in replica.process.downs],
            departures=tuple(self.departures),
            collected_at=time.time(),
            allowed=allowed,
        )

    async def _outstanding(self) -> dict[str, int]:
        """By file, and by what running replicas say, once nothing is left or the time for it is over."""
        deadline = time.monotonic() + REPLAYED_WITHIN
        while True:
            left = self.journals.outstanding()
            left |= {replica.url: await replica.outstanding() for replica in self.replicas}
            if not any(left.values()) or time.monotonic() > deadline:
                return left
            await asyncio.sleep(0.2)

    def _journaled(self, grants: Collection[str]) -> Iterator[Journaled]:
        self.journals.look()
        for each in self.journals.entries.values():
            if str(each.grant_id) in grants:
                lineage_id = str(each.lineage_id)
                yield Journaled(str(each.attempt_id), str(each.grant_id), lineage_id, each.generation)

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
        return found | {"journals": b" ".join(self.journals.secrets)}


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="broker-faults-"))
    folder.chmod(0o755)  # PostgreSQL's own user has to pass
    (folder / "journal").mkdir(mode=0o700)
    return folder
