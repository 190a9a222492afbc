"""What the machine can do to us: a full disk, and a wall clock that jumps. For root on Linux, in the long form only."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.evidence import Allowed
from tests.faults.supervisor import World
from tests.faults.trial import Outcome, Size, Trial

_BLOCK = bytes(1 << 16)


class Unavailable(Exception):
    """This machine cannot do it; the message says what to install or to be."""


class SmallDisk:
    """A tmpfs of its own, which can be filled up and relieved."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    @classmethod
    @contextmanager
    def mounted(cls, *, megabytes: int) -> Iterator[SmallDisk]:
        """Unmounted at the end, whoever still has files there. Raises Unavailable."""
        folder = Path(tempfile.mkdtemp(prefix="broker-faults-disk-"))
        options = f"size={megabytes}m,mode=0755"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
            check=False,
            capture_output=True,
            text=True,
        )
        try:
            if mounted.returncode:
                raise Unavailable(
                    f"A small disk needs root and `mount` (Debian package mount): {mounted.stderr}"
                )
            yield cls(folder)
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)
            folder.rmdir()

    def fill(self) -> None:
        """Not a byte is left."""
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while file.write(_BLOCK) == len(_BLOCK):
                    pass
            except OSError:
                return

    def relieve(self) -> None:
        self._ballast.unlink(missing_ok=True)


async def full_database_disk(seed: int, size: Size) -> Outcome:
    """PostgreSQL's disk is full under load, until somebody makes room and starts it where it gave up."""
    with SmallDisk.mounted(megabytes=160) as disk:
        async with World.running(postgres_on=disk.folder / "postgres") as world:
            trial = await Trial.of("database disk full", world, seed, size)
            async with trial.under_load():
                for _ in range(size.faults):
                    disk.fill()
                    await trial.rest(3.0, 5.0)
                    disk.relieve()
                    if not world.postgres.is_running:
                        await world.postgres.start()
                    await trial.rest(1.0, 2.0)
            return await trial.end(crashes=size.faults)


async def full_journal_disk(seed: int, size: Size) -> Outcome:
    """The journal's disk is full under load while PostgreSQL is killed, so that both places for an answer are gone."""
    with SmallDisk.mounted(megabytes=1) as disk:
        async with World.running(settings={"JOURNAL_DIR": str(disk.folder)}) as world:
            trial = await Trial.of("journal disk full", world, seed, size)
            async with trial.under_load():
                for _ in range(size.faults):
                    disk.fill()
                    await trial.rest(1.5, 2.0)
                    world.postgres.crash()
                    await trial.rest(0.2, 1.0)
                    await world.postgres.start()
                    disk.relieve()
                    await trial.rest(1.0, 2.0)
            return await trial.end(crashes=size.faults)


async def clock_jumps(seed: int, size: Size) -> Outcome:
    """The wall clock of one replica jumps two hours ahead, that of another two hours back, under load."""
    library = _faketime()
    async with World.running(replicas=3) as world:
        times = [world.folder / f"wall-clock-{replica.number}" for replica in world.replicas]
        for replica, file in zip(world.replicas, times, strict=True):
            file.write_text("+0")
            replica.process.environment |= {
                "LD_PRELOAD": str(library),
                "FAKETIME_TIMESTAMP_FILE": str(file),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
            await replica.process.end()
            await replica.start()
        trial = await Trial.of("clock jumps", world, seed, size)
        async with trial.under_load():
            for _ in range(size.faults):
                for file, jump in zip(times, ("+2h", "-2h", "+0"), strict=True):
                    file.write_text(jump)
                await trial.rest(2.0, 3.0)
                trial.random.shuffle(times)
        return await trial.end(crashes=size.faults, allowed=Allowed())


def _faketime() -> Path:
    """Raises Unavailable."""
    found = [*Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), *Path("/usr/lib").glob("faketime/*.so.1")]
    if not found or not os.access(found[0], os.R_OK):
        raise Unavailable(
            "A wall clock that jumps needs the Debian package libfaketime, which is not installed."
        )
    return found[0]
