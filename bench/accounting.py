"""What the operating system has on its account of a process: time on a processor, and memory. Linux."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")


def cpu_seconds(pids: Iterable[int]) -> float:
    """That all threads of these processes have spent on a processor so far (proc(5), schedstat: nanoseconds).

    A thread or process that has ended is not in it, so the difference of two readings is right only where none ended.
    """
    return _scheduled(pids, 0)


def waited_seconds(pid: int) -> float:
    """That its threads were ready to run so far and had no processor, since others had them."""
    return _scheduled([pid], 1)


def _scheduled(pids: Iterable[int], field: int) -> float:
    nanoseconds = 0
    for pid in pids:
        with suppress(OSError):
            for task in (_PROC / str(pid) / "task").iterdir():
                with suppress(OSError):
                    nanoseconds += int((task / "schedstat").read_text().split()[field])
    return nanoseconds / 1e9


def resident_megabytes(pid: int) -> float:
    """VmRSS: what the process has in memory, shared libraries and all, in 10^6 bytes as the table prints it."""
    return _megabytes(pid, "VmRSS")


def forget_peak(pid: int) -> None:
    """The peak counts from now on (proc(5), clear_refs)."""
    (_PROC / str(pid) / "clear_refs").write_text("5")


def peak_megabytes(pid: int) -> float:
    """VmHWM: the most that `resident_megabytes` was."""
    return _megabytes(pid, "VmHWM")


def _megabytes(pid: int, name: str) -> float:
    status = (_PROC / str(pid) / "status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) * 1024 / 1e6


def family(pid: int) -> Iterator[int]:
    """The process and its direct children: of PostgreSQL's first one, all there are."""
    yield pid
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                    yield int(entry.name)


def machine() -> dict[str, str]:
    """What a table of figures has to tell of where it was made; its name is not among it."""
    processors = len(os.sched_getaffinity(0))
    return {"kernel": (_PROC / "sys/kernel/osrelease").read_text().strip(), "processors": str(processors)}
