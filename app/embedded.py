"""The private PostgreSQL that runs when no BROKER_DATABASE_URL is given: its files, its start, its end.

    <data_dir>/postgres.lock    held while somebody starts the server: two at once make one
    <data_dir>/postgres/        for root perhaps a link, see `embedded_host`
        users.lock              shared by all who use the server; who gets it alone is the last, and stops it
        password                0600, made with the cluster
        data/                   the cluster, and server.log; it belongs to the user whom the server runs as
        data.new-*/             a cluster in the making, renamed once it is whole

Locks vanish with the process that held them and the server outlives it, so the next start takes it up again.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.embedded_host import (
    Account,
    Binaries,
    account_for,
    answers,
    binaries_for,
    free_port,
    home_in,
    is_postgres,
    run,
)
from app.errors import ConfigurationError

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 10.0  # starts may fail after a kill -9, until the last backend has noticed and gone
_RECOVERY_SECONDS = 120.0  # for a server that is there, but starting, recovering or stopping
_LOG_BYTES = 1 << 20
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Who sent a refused statement is told. The log keeps starts, stops and crashes: so it stays small, and free of
    # what statements hold.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
}


@contextmanager
def running(data_dir: Path, *, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """Runs a server over `data_dir`, made at its first use, and yields its URL for SQLAlchemy's asyncpg.

    The URL's superuser `broker` has the database `broker` on a loopback port that changes with each start.
    Processes of one user may share `data_dir` and thereby the server: the last to leave stops it. `settings` are
    further settings of the server, heard by whoever starts it. Raises ConfigurationError if it cannot be had.
    """
    with ExitStack() as leaving:
        try:
            url = _enter(data_dir.resolve(), _SETTINGS | dict(settings or {}), leaving)
        except OSError as error:
            owner = "Run the service as the user who made it, or set BROKER_DATABASE_URL."
            raise ConfigurationError([f"{data_dir}/postgres cannot be used: {error}. {owner}"]) from error
        yield url


def _enter(data_dir: Path, settings: Mapping[str, str], leaving: ExitStack) -> str:
    data_dir.mkdir(parents=True, exist_ok=True)
    with _opened(data_dir / "postgres.lock") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        account = account_for(data_dir / "postgres" / "data")
        home = home_in(data_dir, account)
        server = _Server(home, account, binaries_for(home / "data", account), settings)
        users = leaving.enter_context(_opened(home / "users.lock"))
        _join(users)
        leaving.callback(server.stop_if_last, users)  # before the start, which may fail or be interrupted
        return server.start()


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _join(users: int) -> None:
    """Takes the users' lock, shared, and refuses to share with another machine or container.

    A server over there has no process and no port here: it would look dead, and a second one ruin the cluster.
    """
    here = _machine().encode()
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if os.pread(users, 1024, 0) != here:
            where = "Another machine or container uses the same data folder"
            raise ConfigurationError(
                [f"{where}: to run the service in both, set BROKER_DATABASE_URL."]
            ) from None
    else:
        os.ftruncate(users, 0)
        os.pwrite(users, here, 0)
    fcntl.flock(users, fcntl.LOCK_SH)


def _machine() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return "macOS"  # without containers of its own; a host's name may change any time


@dataclass(frozen=True)
class _Server:
    home: Path
    account: Account | None
    binaries: Binaries
    settings: Mapping[str, str]

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.data / "server.log"

    def start(self) -> str:
        """The server's URL, once it serves: taken up where it runs, else started. Wants the start lock held."""
        for leftover in self.home.glob("data.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if not self.data.exists():
            self._create_cluster()
        port = self._serve()
        password = (self.home / "password").read_text()
        return f"postgresql+asyncpg://broker:{password}@127.0.0.1:{port}/broker"

    def stop_if_last(self, users: int) -> None:
        """Stops the server unless others use it. Gives up the shared lock that the descriptor `users` has."""
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if self._is_alive():
            self._control("stop", "-m", "fast", "-w", "-t", "60")
        if self._is_alive():
            logger.warning("The embedded PostgreSQL in %s does not stop.", self.data)

    def _create_cluster(self) -> None:
        """Makes it, password included: whole or not at all."""
        folder = Path(tempfile.mkdtemp(prefix="data.new-", dir=self.home))
        if self.account:
            os.chown(folder, *self.account)
        password = self._new_password()
        self._initdb(folder)
        options = ["-D", str(folder), "--exit_on_error=on", *self._options(), "postgres"]
        # Over stdin, so that the password is on no command line.
        sql = f"ALTER ROLE broker PASSWORD '{password}'\nCREATE DATABASE broker\n"
        made = self._run("postgres", "--single", *options, text=sql)
        if made.returncode:
            raise ConfigurationError([f"The embedded PostgreSQL cannot be set up: {_last_line(made.stdout)}"])
        folder.rename(self.data)

    def _new_password(self) -> str:
        password = secrets.token_hex(24)
        place = self.home / "password"
        place.unlink(missing_ok=True)
        with open(place, "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(password)
            file.flush()
            os.fsync(file.fileno())  # the cluster, useless without it, is on the disk before it is in use
        return password

    def _initdb(self, folder: Path) -> None:
        options = ["-D", str(folder), "-U", "broker", "-E", "UTF8", "--data-checksums"]
        options += ["--auth-local=reject", "--auth-host=scram-sha-256"]
        if self.settings.get("fsync") == "off":
            options.append("--no-sync")
        for locale in ("C.UTF-8", "C"):  # macOS may not know C.UTF-8
            made = self._run("initdb", *options, f"--locale={locale}")
            if made.returncode == 0:
                return
        raise ConfigurationError([f"The embedded PostgreSQL cannot be made: {_last_line(made.stdout)}"])

    def _serve(self) -> int:
        """The port of the server, started if it does not run."""
        began = time.monotonic()
        while (port := self._port()) is None:
            is_alive = self._is_alive()
            if time.monotonic() - began > (_RECOVERY_SECONDS if is_alive else _PATIENCE_SECONDS):
                raise ConfigurationError([f"The embedded PostgreSQL does not start: {self._last_words()}"])
            if is_alive or self._launch().returncode:
                time.sleep(0.2)
        return port

    def _launch(self) -> subprocess.CompletedProcess[str]:
        """Starts the server on some free port, which another may take first: then it fails, and may be repeated."""
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.old"))
        # It is stale, yet PostgreSQL would refuse for any process that has this number now. Backends that outlive
        # a killed server are safe from a second one still: it finds their shared memory by the folder.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        options = shlex.join([*self._options(), f"--port={free_port()}"])
        # pg_ctl gives the server a session of its own, so that Ctrl-C in a terminal does not end it before us.
        return self._control("start", "-w", "-t", "60", "-l", str(self.log), "-o", options)

    def _port(self) -> int | None:
        """Where the server answers; None if it does not, or is just starting or stopping."""
        match self._postmaster():
            case [_, _, _, port, _, _, _, status, *_] if status.strip() == "ready" and self._is_alive():
                return int(port) if answers(int(port)) else None
        return None

    def _is_alive(self) -> bool:
        postmaster = self._postmaster()
        return bool(postmaster) and postmaster[0].isdigit() and is_postgres(int(postmaster[0]))

    def _postmaster(self) -> list[str]:
        """The file's lines: pid, folder, start, port, socket folder, address, shared memory, status."""
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _options(self) -> list[str]:
        return [f"--{name}={value}" for name, value in self.settings.items()]

    def _control(self, action: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run("pg_ctl", action, "-D", str(self.data), *arguments)

    def _run(self, program: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return run(self.account, self.binaries.folder / program, *arguments, text=text)

    def _last_words(self) -> str:
        said = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"{_last_line(said)} (its log is {self.log})"


def _last_line(text: str) -> str:
    """The last that tells a reason: what follows it is a hint, or just the end."""
    lines = ["it said nothing", *text.strip().splitlines()[-5:]]
    reasons = [line for line in lines if "FATAL" in line or "PANIC" in line]
    return (reasons or lines)[-1]
