"""The broker as tests use it: in this process over ASGI, and as processes of its own over sockets."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, cast

import httpx
from fastapi import FastAPI

from app.api.lane import settle
from app.api.services import Services
from app.environment import read_settings
from app.main import create_app
from app.settings import Settings

ADMIN_KEY = "brk_0123456789abcdef_" + "0123456789abcdef" * 4
ENCRYPTION_KEYS = "test:nxw64HtS1Iht6QQXwvpbszGO0F92qQziRIvXYRo+9ck="
ROTATIONS = {"sandbox": "strict", "graced": "graced", "keeps": "never"}

_ENTRY = """
name: {name}
issuer: {url}
authorization_url: {url}/authorize
token_url: {url}/token
revocation_url: {url}/revoke
introspection_url: {url}/introspect
scopes: {{default: [basic]}}
access_token: {{lifetime_seconds: 300}}
refresh_token: {{rotation: {rotation}{grace}}}
"""


def write_providers(folder: Path, url: str) -> Path:
    """A catalogue file for each way to rotate, all leading to the sandbox at `url`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rotation in ROTATIONS.items():
        grace = ", grace_seconds: 30" if rotation == "graced" else ""
        text = _ENTRY.format(name=name, url=url, rotation=rotation, grace=grace)
        (folder / f"{name}.yaml").write_text(text)
    return folder


def settings_for(database_url: str, providers_dir: Path, *, data_dir: Path, **overrides: Any) -> Settings:
    """Settings with the sandbox registered under three names, and retries that do not dawdle."""
    clients = {name: {"client_id": "sandbox", "client_secret": "sandbox-secret"} for name in ROTATIONS}
    values: dict[str, Any] = {
        "environment": "development",
        "database_url": database_url,
        "migrate": False,
        "data_dir": data_dir,
        "encryption_keys": ENCRYPTION_KEYS,
        "admin_key": ADMIN_KEY,
        "providers_dir": providers_dir,
        "allow_loopback_upstreams": True,
        "return_to": ["https://app.example.com/done"],
        "clients": clients,
        "retry_base_seconds": 0.01,
        "refresh_interval_seconds": 86400,
        "_env_file": None,
        **overrides,
    }
    return read_settings(**values)


class Broker:
    """An application whose lifespan is entered, and a client that has the admin key."""

    def __init__(self, app: FastAPI, http: httpx.AsyncClient) -> None:
        self.app = app
        self.http = http

    @classmethod
    @asynccontextmanager
    async def running(cls, settings: Settings) -> AsyncIterator[Self]:
        app = create_app(settings)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=transport,
                base_url="http://broker.test",
                headers={"Authorization": f"Bearer {ADMIN_KEY}"},
            ) as http,
        ):
            broker = cls(app, http)
            await broker.first_tick()
            yield broker

    @property
    def services(self) -> Services:
        return cast(Services, self.app.state.services)

    async def first_tick(self) -> None:
        """The scheduler's first tick comes at once, and would refresh what a test has only just brought."""
        async with asyncio.timeout(10):
            while self.services.timetable.last_tick_at is None:
                await asyncio.sleep(0.005)

    async def run(self, job: str) -> None:
        """Does now what the timetable does by the clock, with all that was answered by now."""
        settle(self.app)
        await next(each for each in self.services.timetable.jobs if each.name == job).work()

    async def put(self, path: str, tokens: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Imports a grant at `provider/user` and answers it."""
        answer = await self.http.put(f"/grants/{path}", json={**tokens, **more})
        assert answer.status_code in (200, 201), answer.text
        return cast(dict[str, Any], answer.json())

    async def token(self, path: str, **query: Any) -> dict[str, Any]:
        """Fetches the token of `provider/user`."""
        answer = await self.http.get(f"/tokens/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return cast(dict[str, Any], answer.json())


async def heard(broker: Broker) -> None:
    """Until it listens."""
    async with asyncio.timeout(10):
        while not broker.services.answers.is_heard:
            await asyncio.sleep(0.01)


def bring(token_answer: Mapping[str, Any], *, expires_in: int = -1) -> dict[str, Any]:
    """A token endpoint's answer as the body of an import; by default its access token has just expired."""
    fields = {
        "access_token": token_answer["access_token"],
        "refresh_token": token_answer.get("refresh_token"),
    }
    if expires_in < 0:
        return {**fields, "expires_at": "2020-01-01T00:00:00Z"}
    return {**fields, "expires_in": expires_in}


class Replica:
    """A `broker serve` of its own."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log

    def wait_until_ready(self, *, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        with httpx.Client(base_url=self.url) as http:
            while time.monotonic() < deadline:
                if self.process.poll() is not None:
                    raise AssertionError(f"the replica ended:\n{self.log.read_text()}")
                try:
                    if http.get("/health-check/ready").status_code == 204:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.05)
        raise AssertionError(f"the replica was not ready in {seconds} s:\n{self.log.read_text()}")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, *, seconds: float = 40) -> int:
        return self.process.wait(seconds)


class Replicas:
    """Any number of replicas on one database; None: the embedded one, which those of one `data_dir` share."""

    def __init__(self, database_url: str | None, providers_dir: Path, folder: Path) -> None:
        self._database_url = database_url
        self._providers_dir = providers_dir
        self._folder = folder
        self._started: list[Replica] = []

    def start(
        self,
        *,
        environment: Mapping[str, str] | None = None,
        by: Sequence[str] = (),
        **settings: str,
    ) -> Replica:
        """One more, ready to answer; `settings` by their names without the prefix, in lower case. `by` is a command that
        becomes the one that follows it."""
        port = int(settings.get("port") or free_port())
        values = {
            "ENVIRONMENT": "development",
            **({} if self._database_url is None else {"DATABASE_URL": self._database_url}),
            "DATA_DIR": str(self._folder / "var"),
            "ENCRYPTION_KEYS": ENCRYPTION_KEYS,
            "ADMIN_KEY": ADMIN_KEY,
            "PROVIDERS_DIR": str(self._providers_dir),
            "ALLOW_LOOPBACK_UPSTREAMS": "true",
            "RETRY_BASE_SECONDS": "0.05",
            "REFRESH_INTERVAL_SECONDS": "86400",
            **{f"CLIENTS__{name.upper()}__CLIENT_ID": "sandbox" for name in ROTATIONS},
            **{f"CLIENTS__{name.upper()}__CLIENT_SECRET": "sandbox-secret" for name in ROTATIONS},
            **{name.upper(): value for name, value in settings.items()},
            "PORT": str(port),
        }
        log = self._folder / f"replica-{len(self._started)}.log"
        variables = {f"BROKER_{name}": value for name, value in values.items()}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*by, sys.executable, "-m", "app.cli", "serve"],
                env={**os.environ, **(environment or {}), **variables},
                stdout=output,
                stderr=output,
            )
        replica = Replica(process, f"http://127.0.0.1:{port}", log)
        self._started.append(replica)
        replica.wait_until_ready()
        return replica

    def stop(self) -> None:
        for replica in self._started:
            if replica.process.poll() is None:
                replica.terminate()
        for replica in self._started:
            try:
                replica.wait()
            except subprocess.TimeoutExpired:
                replica.process.kill()
                replica.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
