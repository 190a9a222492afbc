"""What is measured, as processes of its own on loopback: the service with its private PostgreSQL, a provider, reference
servers, and the driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from app import embedded
from bench.accounting import cpu_seconds, family
from bench.load import Load, Outcome
from tests.broker import ADMIN_KEY, Replica, Replicas, free_port, write_providers

_STATEMENTS = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track": "top"}
_PATIENCE_SECONDS = 60.0
# Where it is set, as for tests, each start would compile the service anew.
COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}


class Driver:
    """The process that sends; one load at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.driver"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @contextmanager
    def connected(self, load: Load) -> Iterator[None]:
        """From the connecting on. `finish` has to follow within."""
        self._say(json.dumps(load.as_json()))
        self._hear()
        yield

    def finish(self) -> Outcome:
        self._say("go")
        return Outcome.of_json(self._hear())

    def send(self, load: Load) -> Outcome:
        """Raises RuntimeError where an answer was not as it has to be."""
        with self.connected(load):
            return self.finish()

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(20)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> Any:
        assert self._process.stdout is not None
        answer = json.loads(self._process.stdout.readline() or '{"error": "The driver has ended"}')
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(f"The load failed: {answer['error']}")
        return answer


class Stage:
    """`url` is of PostgreSQL's owner; processes are ended with the stage."""

    def __init__(self, folder: Path, url: str, leaving: ExitStack) -> None:
        self.folder = folder
        self.url = url.replace("+asyncpg", "")
        self.driver = Driver()
        self._provider_port = free_port()
        self._provider: subprocess.Popen[bytes] | None = None
        self._leaving = leaving
        self._leaving.callback(self.driver.close)
        self.provider_url = f"http://127.0.0.1:{self._provider_port}"
        providers = write_providers(folder / "providers", self.provider_url)
        self._replicas = Replicas(None, providers, folder)
        self._leaving.callback(self._replicas.stop)

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Stage]:
        """With PostgreSQL, and nothing else yet."""
        with ExitStack() as leaving:
            folder = Path(leaving.enter_context(tempfile.TemporaryDirectory(prefix="broker-bench-")))
            folder.chmod(0o755)  # PostgreSQL's own user has to pass
            url = leaving.enter_context(embedded.running(folder / "var", settings=_STATEMENTS))
            yield cls(folder, url, leaving)

    def service(self, **settings: Any) -> Replica:
        """The service, ready, as it is in production but for keys and a provider on this machine."""
        return self._replicas.start(environment=COMPILED, **settings)

    def end(self, replica: Replica) -> None:
        replica.terminate()
        replica.wait()

    def provider(self, *, delay: float) -> None:
        """A token endpoint that answers after so many seconds, at the address that the service knows; in place of the last one."""
        if self._provider is not None:
            _end(self._provider)
        arguments = ["--port", str(self._provider_port), "--delay", str(delay)]
        self._provider = self.start("tests.token_endpoint", arguments, self.provider_url)

    def reference(self, kind: str, *, provider: str | None = None) -> tuple[int, int]:
        """The pid and the port of a reference server. `provider`: its address, where it is not the token endpoint's."""
        port = free_port()
        provider = provider or self.provider_url
        arguments = [kind, "--port", str(port), "--database", self.url, "--provider", provider]
        return self.start("bench.reference", arguments, f"http://127.0.0.1:{port}/").pid, port

    @property
    def postgres(self) -> Sequence[int]:
        """All processes of PostgreSQL, as they are now."""
        postmaster = next((self.folder / "var").rglob("postmaster.pid"))
        return list(family(int(postmaster.read_text().split()[0])))

    def postgres_seconds(self) -> float:
        return cpu_seconds(self.postgres)

    def consumer(
        self, replica: Replica, name: str, *, scopes: Sequence[str] = ("tokens:read", "tokens:refresh")
    ) -> Mapping[str, str]:
        """The headers of a consumer that may use every token, as a service has them."""
        admin = {"Authorization": f"Bearer {ADMIN_KEY}"}
        with httpx.Client(base_url=replica.url, headers=admin) as http:
            made = http.post("/consumers", json={"name": name, "scopes": list(scopes)})
            key = http.post(f"/consumers/{made.raise_for_status().json()['id']}/keys").raise_for_status()
        return {"authorization": f"Bearer {key.json()['key']}", "accept": "application/json"}

    def start(self, module: str, arguments: Sequence[str], url: str) -> subprocess.Popen[bytes]:
        """A process that answers at that URL, whatever it answers."""
        process = subprocess.Popen([sys.executable, "-m", module, *arguments], env=os.environ.copy())
        self._leaving.callback(_end, process)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                httpx.get(url)
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return process
        raise RuntimeError(f"{module} did not start")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(20)


def port_of(replica: Replica) -> int:
    return int(replica.url.rpartition(":")[2])
