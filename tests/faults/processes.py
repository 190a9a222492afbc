"""Processes that never outlive who started them, and are signalled by pid only."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_PR_SET_PDEATHSIG = 1
_PORTS = iter(range(10_000 + 97 * os.getpid() % 20_000, 32_000))  # processes begin in different places
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Process:
    """A command that can be started again and again. Its output goes to `log`, behind what is there.

    The kernel kills it when the thread that started it ends, so start it on the main thread.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str],
        uid: int | None = None,
        folder: Path = REPOSITORY,
    ) -> None:
        """`folder`: where it runs, unless as somebody else."""
        self.command = list(command)
        self.log = log
        self.environment = dict(environment)
        self._uid = uid
        self._folder = folder
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Does not wait until it is of use. Raises AssertionError where it runs already."""
        assert not self.is_running, f"{self.command[0]} runs already"
        with self.log.open("ab") as output:
            self._popen = subprocess.Popen(
                self.command,
                env=self.environment,
                cwd="/" if self._uid else self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                user=self._uid,
                group=self._uid,
                extra_groups=[] if self._uid else None,
                start_new_session=True,  # Ctrl-C is for us: what we started is ended in its order
                preexec_fn=_die_with_parent,  # noqa: PLW1509  it takes no lock, and makes one call
            )

    @property
    def pid(self) -> int:
        assert self._popen is not None, "never started"
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def signal(self, number: int) -> None:
        """Sends a signal; nothing where it has ended."""
        if self._popen is not None:
            self._popen.send_signal(number)

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9, and gone when this returns."""
        self.signal(signal.SIGKILL)
        if self._popen is not None:
            self._popen.wait(10)

    async def ended(self, *, seconds: float) -> int:
        """Its exit code. Raises TimeoutError."""
        assert self._popen is not None, "never started"
        async with asyncio.timeout(seconds):
            while (code := self._popen.poll()) is None:
                await asyncio.sleep(0.02)
        return code

    async def end(self, *, seconds: float = 40) -> int:
        """SIGTERM, or kill -9 where that does not do it in time; the exit code."""
        self.resume()
        self.signal(signal.SIGTERM)
        with suppress(TimeoutError):
            return await self.ended(seconds=seconds)
        self.kill()
        return await self.ended(seconds=1)

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else "it said nothing"


def own_port() -> int:
    """A loopback port that is free now, and given to no outgoing connection while who listens there is started anew.

    Linux hands out those from 32768 on; no two calls of one process give the same.
    """
    for port in _PORTS:
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def _die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def children(parent: int) -> Iterator[int]:
    """The pids of its direct children."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == parent and fields[0] not in "ZX":
                    yield int(entry.name)


def is_alive(pid: int) -> bool:
    """Whether it runs; one that has ended and was not waited for does not."""
    return _state(pid) not in "ZX"


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped it."""
    return _state(pid) == "T"


def _state(pid: int) -> str:
    """As the kernel abbreviates it; X where there is none of that pid."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def signal_all(pids: Sequence[int], number: int) -> None:
    """Those that have gone meanwhile are passed over."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


async def until(holds: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Raises AssertionError, naming `what`, where it did not hold in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        await asyncio.sleep(0.02)
