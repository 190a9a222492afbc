"""The journal on real files: what it acknowledged survives kills, full and failing disks; a file has one reader."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any
from uuid import UUID, uuid4

import pytest

from app.clock import SystemClock
from app.grants import journal_file
from app.grants.grant import Trigger
from app.grants.journal import Journal, JournalUnavailable
from app.grants.journal_record import Entry, decode_all, encode, encode_done

ENTRY = Entry(
    attempt_id=UUID(int=0),
    epoch=3,
    grant_id=UUID(int=2),
    provider="sandbox",
    lineage_id=UUID(int=4),
    generation=7,
    base_fingerprint=bytes(32),
    trigger=Trigger.REQUEST,
    sealed=bytes(1500),
    received_at=datetime(2026, 3, 1, tzinfo=UTC),
    took=timedelta(milliseconds=250),
)


def entry(number: int | None = None, *, size: int = 1500) -> Entry:
    return replace(ENTRY, attempt_id=uuid4() if number is None else UUID(int=number), sealed=bytes(size))


class SetClock(SystemClock):
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at


class Disk:
    """Syncs for real; counts, hangs and fails on demand."""

    def __init__(self) -> None:
        self.syncs = 0
        self.failing: list[int] = []  # errors of the next syncs
        self.answers = threading.Event()
        self.answers.set()

    def sync(self, fd: int) -> None:
        self.syncs += 1
        self.answers.wait(10)
        if self.failing:
            number = self.failing.pop(0)
            raise OSError(number, os.strerror(number))
        os.fdatasync(fd)


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk()
    yield made
    made.answers.set()  # lets the thread end


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@asynccontextmanager
async def opened(
    folder: Path, *, replica: str = "a", clock: SystemClock | None = None, **how: Any
) -> AsyncIterator[Journal]:
    made = Journal(folder, clock or SystemClock(), replica=replica, **how)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def journal(folder: Path, clock: SetClock, disk: Disk) -> AsyncIterator[Journal]:
    async with opened(folder, clock=clock, sync=disk.sync) as made:
        yield made


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def on_disk(folder: Path) -> set[UUID]:
    """What a replay of everything would bring, whoever has the locks."""
    data = [path.read_bytes() for path in folder.glob("*.journal")]
    return {found.attempt_id for content in data for found in decode_all(content).entries}


async def found(journal: Journal, *, settle: bool = True) -> list[UUID]:
    ids = []
    async for orphan in journal.orphans():
        ids += [one.attempt_id for one in orphan.entries]
        if settle:
            await journal.settled(orphan)
    return ids


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)


async def test_what_was_appended_is_on_disk_until_it_is_done(journal: Journal, folder: Path) -> None:
    await asyncio.gather(*(journal.append(entry(number)) for number in (1, 2)))
    assert on_disk(folder) == {UUID(int=1), UUID(int=2)}
    assert (journal.outstanding, journal.size) == (2, (folder / "a.journal").stat().st_size)
    journal.done(UUID(int=1))
    journal.done(UUID(int=99))
    await until(lambda: on_disk(folder) == {UUID(int=2)})
    journal.done(UUID(int=2))
    await until(lambda: journal.size == 0)
    assert (folder / "a.journal").stat().st_size == 0
    assert journal.outstanding == 0


async def test_what_is_done_before_it_was_written_is_never_replayed(
    journal: Journal, folder: Path, disk: Disk
) -> None:
    await journal.append(entry(1))
    disk.answers.clear()
    writing = [asyncio.create_task(journal.append(entry(number))) for number in (2, 3)]
    await until(lambda: disk.syncs == 3)
    late = asyncio.create_task(journal.append(entry(4)))
    await asyncio.sleep(0)
    for number in (3, 4):
        journal.done(UUID(int=number))
    disk.answers.set()
    await asyncio.gather(*writing, late)
    assert on_disk(folder) == {UUID(int=1), UUID(int=2)}


async def test_an_append_may_be_repeated(journal: Journal, folder: Path) -> None:
    for _ in range(3):
        await journal.append(entry(1))
    assert journal.outstanding == 1
    assert on_disk(folder) == {UUID(int=1)}


async def test_those_who_append_at_once_share_a_sync(journal: Journal, folder: Path, disk: Disk) -> None:
    before = disk.syncs
    await asyncio.gather(*(journal.append(entry()) for _ in range(200)))
    assert disk.syncs - before <= 3
    assert len(on_disk(folder)) == 200


async def test_directory_and_file_are_the_owners_alone(folder: Path) -> None:
    mask = os.umask(0)
    try:
        async with opened(folder):
            assert mode_of(folder) == 0o700
            assert mode_of(folder / "a.journal") == 0o600
    finally:
        os.umask(mask)


async def test_a_clean_end_removes_the_file_and_another_leaves_it(folder: Path) -> None:
    async with opened(folder) as journal:
        await journal.append(entry(1))
        journal.done(UUID(int=1))
    assert files(folder) == []
    async with opened(folder) as journal:
        await journal.append(entry(2))
    assert files(folder) == ["a.journal"]
    await journal.close()
    journal.done(UUID(int=2))
    with pytest.raises(JournalUnavailable):
        await journal.append(entry(3))
    async with opened(folder) as journal:  # a namesake; its file has another name
        assert files(folder) == ["a.1.journal", "a.journal"]
        assert await found(journal) == [UUID(int=2)]
        assert files(folder) == ["a.1.journal"]


async def test_what_is_not_settled_is_found_by_the_next_who_looks(folder: Path) -> None:
    async with opened(folder, replica="gone") as gone:
        await gone.append(entry(1))
    async with opened(folder) as one, opened(folder, replica="b") as other:
        async with aclosing(one.orphans()) as orphans:
            assert [entry.attempt_id for entry in (await anext(orphans)).entries] == [UUID(int=1)]
            assert await found(other) == []
        assert await found(other, settle=False) == [UUID(int=1)]
        assert await found(one) == [UUID(int=1)]
        assert await found(other) == []


async def test_a_file_with_nothing_to_settle_is_removed_and_damage_is_told(folder: Path) -> None:
    os.mkdir(folder)
    (folder / "empty.journal").touch()
    (folder / "settled.journal").write_bytes(encode(entry(1)) + encode_done(UUID(int=1)))
    (folder / "torn.journal").write_bytes(encode(entry(2)) + encode(entry(3))[:-1])
    (folder / "unreadable.journal").mkdir()
    (folder / "another.txt").touch()
    async with opened(folder) as journal:
        async for orphan in journal.orphans():
            assert (orphan.path.name, len(orphan.entries)) == ("torn.journal", 1)
            assert orphan.damaged == len(encode(entry(3))) - 1
        assert files(folder) == ["a.journal", "another.txt", "torn.journal", "unreadable.journal"]


async def test_the_lock_outlives_other_descriptors_of_the_file(journal: Journal, folder: Path) -> None:
    await journal.append(entry(1))
    for _ in range(2):
        with (folder / "a.journal").open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert await found(journal) == []


async def test_own_entries_that_nobody_settles_are_told_after_their_time(
    journal: Journal, clock: SetClock
) -> None:
    await journal.append(entry(1))
    clock.at += 10
    await journal.append(entry(2))
    assert [one.attempt_id for one in journal.unsettled(5)] == [UUID(int=1)]
    assert journal.unsettled(0) == [entry(1), entry(2)]
    journal.done(UUID(int=1))
    assert journal.unsettled(5) == []


async def test_a_file_of_mostly_settled_entries_is_left_for_a_fresh_one(
    journal: Journal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_file, "_SETTLED_BYTES", 20_000)
    await journal.append(entry(0))
    names = set()
    for number in range(1, 100):
        await journal.append(entry(number))
        journal.done(UUID(int=number))
        names |= set(files(folder))
        assert journal.size < 30_000
        assert UUID(int=0) in on_disk(folder)
    assert len(names) > 3
    assert len(files(folder)) == 1


async def test_where_there_is_no_room_for_a_fresh_file_the_old_one_goes_on(
    journal: Journal, folder: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.gather(*(journal.append(entry(number)) for number in range(4)))
    for number in range(1, 4):
        journal.done(UUID(int=number))
    await until(lambda: on_disk(folder) == {UUID(int=0)})
    monkeypatch.setattr(journal_file, "_SETTLED_BYTES", 10)
    disk.failing = [errno.ENOSPC]
    await journal.append(entry(4, size=10))
    assert files(folder) == ["a.journal"]
    assert on_disk(folder) == {UUID(int=0), UUID(int=4)}
    assert journal.is_writable


async def test_after_a_failed_sync_all_that_is_outstanding_goes_to_a_fresh_file(
    journal: Journal, folder: Path, disk: Disk
) -> None:
    await journal.append(entry(1))
    disk.failing = [errno.EIO]
    with pytest.raises(JournalUnavailable):
        await journal.append(entry(2))
    assert journal.last_error == "EIO: Input/output error"
    assert (journal.is_writable, journal.outstanding) == (False, 2)
    journal.done(UUID(int=99))
    await journal.append(entry(3))
    assert files(folder) == ["a.1.journal"]
    assert on_disk(folder) == {UUID(int=1), UUID(int=2), UUID(int=3)}
    assert journal.is_writable


async def test_a_failure_ends_by_itself_and_is_looked_into_once_a_second(
    journal: Journal, folder: Path, disk: Disk, clock: SetClock
) -> None:
    await journal.check()
    assert disk.syncs == 1  # of the opening
    disk.failing = [errno.EIO] * 3
    with pytest.raises(JournalUnavailable):
        await journal.append(entry(1))
    for syncs in (3, 4):
        outcomes = await asyncio.gather(*(journal.check() for _ in range(20)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {JournalUnavailable}
        with pytest.raises(JournalUnavailable):
            await journal.check()
        assert disk.syncs == syncs
        clock.at += 1
    await journal.check()
    assert journal.is_writable
    assert (files(folder), on_disk(folder)) == (["a.3.journal"], {UUID(int=1)})


async def test_a_disk_that_hangs_keeps_nobody_waiting(folder: Path, disk: Disk, clock: SetClock) -> None:
    async with opened(folder, clock=clock, sync=disk.sync, within=timedelta(seconds=0.3)) as journal:
        disk.answers.clear()
        began = asyncio.get_running_loop().time()
        outcomes = await asyncio.gather(
            *(journal.append(entry(n)) for n in range(50)), return_exceptions=True
        )
        assert asyncio.get_running_loop().time() - began < 3
        assert {type(outcome) for outcome in outcomes} == {JournalUnavailable}
        assert journal.last_error == "a write takes longer than 0.3 s"
        disk.answers.set()
        await until(lambda: journal.is_writable)
        assert len(on_disk(folder)) == 50


async def test_a_slow_write_is_no_good_one_for_those_to_come(folder: Path, disk: Disk) -> None:
    class SlowClock(SystemClock):
        def monotonic(self) -> float:
            return super().monotonic() * 1_000_000

    made = Journal(folder, SlowClock(), replica="a", sync=disk.sync)
    await made.open()
    assert made.last_error is not None and made.last_error.startswith("a write took ")
    await made.close()


async def test_what_is_not_committed_is_bounded(folder: Path) -> None:
    async with opened(folder, max_bytes=200_000) as journal:
        await journal.append(entry(1, size=80_000))
        assert journal.is_writable
        await journal.append(entry(2, size=60_000))
        assert journal.last_error == "2 entries fill it that are not committed"
        with pytest.raises(JournalUnavailable):
            await journal.append(entry(3, size=10_000))
        with pytest.raises(JournalUnavailable):
            await journal.check()
        assert on_disk(folder) == {UUID(int=1), UUID(int=2)}
        journal.done(UUID(int=1))
        await journal.check()
        await journal.append(entry(3, size=10_000))


async def test_a_directory_that_somebody_cleared_is_filled_anew(journal: Journal, folder: Path) -> None:
    await journal.append(entry(1))
    (folder / "a.journal").unlink()
    os.rmdir(folder)
    await journal.append(entry(2))
    assert on_disk(folder) == {UUID(int=1), UUID(int=2)}


async def test_without_a_directory_it_opens_when_there_is_one(folder: Path, clock: SetClock) -> None:
    folder.with_name("journal").write_bytes(b"")
    journal = Journal(folder, clock, replica="a")
    with pytest.raises(JournalUnavailable):
        await journal.open()
    assert (journal.is_writable, journal.last_error) == (False, "ENOTDIR: Not a directory")
    with pytest.raises(JournalUnavailable):
        await journal.append(entry(1))
    os.unlink(folder)
    await journal.check()
    assert (journal.is_writable, on_disk(folder)) == (True, {UUID(int=1)})
    await journal.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mounted)]
    made = subprocess.run(command, check=False, capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"may not mount: {made.stderr.strip()}")
    yield mounted
    subprocess.run(["umount", "-l", str(mounted)], check=True)


async def test_a_full_disk_is_told_and_ends_when_there_is_room(small_disk: Path, clock: SetClock) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(120_000))
    folder = small_disk / "journal"
    async with opened(folder, clock=clock) as journal:
        kept = []
        with pytest.raises(JournalUnavailable):
            for number in range(100):
                await journal.append(entry(number, size=5000))
                kept.append(UUID(int=number))
        assert journal.last_error == "ENOSPC: No space left on device"
        assert on_disk(folder) == set(kept)
        assert journal.size == (folder / "a.journal").stat().st_size  # no half frame takes room
        with pytest.raises(JournalUnavailable):
            await journal.check()
        ballast.unlink()
        clock.at += 1
        await journal.check()
        assert on_disk(folder) == {*kept, UUID(int=len(kept))}  # with the one that had failed


# Processes of their own. Each says a line when it is ready, and then what it did.
_CHILD = """
import asyncio, resource, sys
from pathlib import Path
from app.clock import SystemClock
from app.grants.journal import Journal, JournalUnavailable
from app.telemetry import configure_logging
from tests.stories.test_journal import entry

def say(*words):
    print(*words, flush=True)

async def append(journal, lane):
    number = 0
    while True:
        number += 1
        made = entry(size=[100, 5_000, 60_000][number % 3])
        await journal.append(made)
        if number % 4 == lane % 4:
            say("done", made.attempt_id)
            journal.done(made.attempt_id)
        else:
            say("kept", made.attempt_id)

async def appending(journal):
    say("ready")
    await asyncio.gather(*(append(journal, lane) for lane in range(6)))

async def replaying(journal):
    say("ready")
    sys.stdin.readline()
    async for orphan in journal.orphans():
        for one in orphan.entries:
            say("found", one.attempt_id)
        await asyncio.sleep(0.002)
        await journal.settled(orphan)
    await journal.close()

async def limited(journal):
    say("ready")
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
    try:
        for _ in range(100):
            made = entry(size=7_000)
            await journal.append(made)
            say("kept", made.attempt_id)
    except JournalUnavailable:
        say("failed", made.attempt_id, journal.last_error, journal.size)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await journal.check()
    say("writable", journal.is_writable, journal.outstanding)
    sys.stdin.readline()

async def main():
    configure_logging(log_format="json", level="CRITICAL")
    journal = Journal(Path(sys.argv[1]), SystemClock(), replica=sys.argv[2])
    await journal.open()
    await globals()[sys.argv[3]](journal)

asyncio.run(main())
"""


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[[str, str], subprocess.Popen[str]]]:
    running = []

    def starting(name: str, what: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _CHILD, str(folder), name, what]
        root = Path(__file__).resolve().parents[2]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
        running.append(child)
        return child

    yield starting
    for child in running:
        child.kill()
        child.communicate()


def ready(children: list[subprocess.Popen[str]]) -> None:
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"


async def test_what_was_acknowledged_survives_a_kill_in_mid_append(
    folder: Path, start: Callable[[str, str], subprocess.Popen[str]]
) -> None:
    for round_number in range(4):
        children = [start(f"{round_number}-{number}", "appending") for number in range(4)]
        ready(children)
        kept, killed = set(), 0
        for child in children:
            await asyncio.sleep(0.02 + 0.0137 * round_number)
            child.send_signal(signal.SIGKILL)
            lines = [
                line.split() for line in child.communicate()[0].splitlines(keepends=True) if line[-1:] == "\n"
            ]
            kept |= {UUID(line[1]) for line in lines if line[0] == "kept"}
            killed += child.returncode == -signal.SIGKILL
        async with opened(folder) as journal:
            again = await found(journal)
        assert killed == len(children)
        assert len(kept) > 20
        assert kept <= set(again)
        assert files(folder) == []


async def test_a_stopped_replica_keeps_its_file_and_a_killed_one_leaves_it(
    folder: Path, start: Callable[[str, str], subprocess.Popen[str]]
) -> None:
    child = start("stopped", "appending")
    ready([child])
    await until(lambda: bool(on_disk(folder)))
    child.send_signal(signal.SIGSTOP)
    async with opened(folder) as journal:
        assert await found(journal) == []
        child.kill()
        child.wait()
        assert len(await found(journal)) > 0


async def test_replicas_that_replay_at_once_share_the_files(
    folder: Path, start: Callable[[str, str], subprocess.Popen[str]]
) -> None:
    os.mkdir(folder)
    for number in range(120):
        data = encode(entry(2 * number)) + encode(entry(2 * number + 1))
        (folder / f"gone-{number}.journal").write_bytes(data)
    async with opened(folder) as alive:
        await alive.append(entry(1000))
        children = [start(f"new-{number}", "replaying") for number in range(3)]
        ready(children)
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        outputs = [(await asyncio.to_thread(child.communicate))[0] for child in children]
        assert [child.returncode for child in children] == [0, 0, 0]
        count = Counter(line.split()[1] for output in outputs for line in output.splitlines())
        assert count == {str(UUID(int=number)): 1 for number in range(240)}
        assert sum(1 for output in outputs if output) > 1
        assert files(folder) == ["a.journal"]


async def test_a_file_that_is_removed_between_its_opening_and_its_lock_is_nobodys(
    journal: Journal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = folder / "0.journal"  # the first to be looked at
    gone.write_bytes(encode(entry(1)))

    def late(fd: int, how: int) -> None:
        gone.unlink(missing_ok=True)  # whoever had the lock has settled it
        flock(fd, how)

    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", late)
    assert await found(journal) == []


@pytest.mark.parametrize("is_removed", [True, False], ids=["removed", "still_held"])
async def test_a_new_file_that_others_took_for_an_orphan_is_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, is_removed: bool
) -> None:
    others: list[IO[str]] = []

    def late(fd: int, how: int) -> None:
        if not others:
            others.append((folder / "a.journal").open())
            flock(others[0], how)
            if is_removed:
                (folder / "a.journal").unlink()
                others[0].close()
        flock(fd, how)

    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", late)
    async with opened(folder) as journal:
        await journal.append(entry(1))
        assert (folder / "a.1.journal").exists()
        assert on_disk(folder) == {UUID(int=1)}
    others[0].close()


async def test_files_that_begin_while_others_look_for_orphans_are_not_taken(folder: Path) -> None:
    """A file is empty and without a lock for a moment; who takes it for an orphan removes it."""
    stop = asyncio.Event()

    async def look(journal: Journal) -> None:
        while not stop.is_set():
            assert await found(journal) == []

    async with opened(folder, replica="b") as looking, opened(folder, replica="c") as also_looking:
        lookers = [asyncio.create_task(look(journal)) for journal in (looking, also_looking)]
        for number in range(200):
            async with opened(folder) as journal:
                await journal.append(entry(number))
                assert on_disk(folder) == {UUID(int=number)}
                journal.done(UUID(int=number))
        stop.set()
        await asyncio.gather(*lookers)


async def test_a_limit_on_the_size_of_files_is_survived(
    folder: Path, start: Callable[[str, str], subprocess.Popen[str]]
) -> None:
    child = start("limited", "limited")
    ready([child])
    assert child.stdout is not None
    lines: list[list[str]] = []
    while not lines or lines[-1][0] != "writable":
        lines.append(child.stdout.readline().split())
    kept = [line[1] for line in lines if line[0] == "kept"]
    [failed] = [line for line in lines if line[0] == "failed"]
    assert failed[2:-1] == ["EFBIG:", "File", "too", "large"]
    assert int(failed[-1]) == sum(len(encode(entry(size=7_000))) for _ in kept)
    assert lines[-1] == ["writable", "True", str(len(kept) + 1)]
    assert {str(id) for id in on_disk(folder)} == {*kept, failed[1]}
