"""What `make run` adds to the service: the sandbox authorization server, one connected sample user, and a banner."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

from app.api.services import Services
from app.connect.request import Wish
from app.errors import BrokerError, ConfigurationError, GrantNotFound, ReconnectRequired
from app.grants.grant import GrantKey
from app.grants.token import Need
from app.telemetry import logger

log = logger(__name__)

SANDBOX_PORT = 8090
SAMPLE = GrantKey("sandbox", "alice")
_SANDBOX_URL = f"http://127.0.0.1:{SANDBOX_PORT}"
_STOP_SECONDS = 5.0
_DIRECT = urllib.request.build_opener(
    urllib.request.ProxyHandler({})
)  # a proxy knows nothing of this machine
# Defaults for trying things out; the caller's own environment wins.
_ENVIRONMENT = {
    "BROKER_ENVIRONMENT": "development",
    "BROKER_ALLOW_LOOPBACK_UPSTREAMS": "true",
    "BROKER_CLIENTS__SANDBOX__CLIENT_ID": "sandbox",
    "BROKER_CLIENTS__SANDBOX__CLIENT_SECRET": "sandbox-secret",
    "BROKER_REFRESH_INTERVAL_SECONDS": "30",
    "BROKER_LOG_FORMAT": "console",
}


def prepare_environment() -> None:
    """Sets what the demonstration needs and the caller has not set."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def sandbox(data_dir: Path) -> Iterator[None]:
    """The sandbox as a process of its own. One that is there already, left by a killed run, is used as it is.

    Raises ConfigurationError where its port is taken by something else.
    """
    if _is_sandbox():
        yield
        return
    data_dir.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "app.sandbox",
            "--port",
            str(SANDBOX_PORT),
            "--state",
            data_dir / "sandbox.json",
        ],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the service first: it drains, and then stops this
    )
    try:
        if process.stdout is None or not process.stdout.readline():
            raise ConfigurationError(
                [f"the sandbox could not listen on port {SANDBOX_PORT}; what listens there has to go first"]
            )
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def connect_sample(services: Services) -> None:
    """Connects the sample user as a browser would, unless that was done in an earlier run.

    Where that fails the service goes on without; the log says so.
    """
    try:
        await _connect_sample(services)
    except (BrokerError, OSError) as error:
        log.warning("demo.sample_not_connected", detail=str(error))


async def _connect_sample(services: Services) -> None:
    try:
        await services.refresher.fresh(SAMPLE, Need())
    except (GrantNotFound, ReconnectRequired):
        wish = Wish(SAMPLE.provider, SAMPLE.user_id, SAMPLE.account, login_hint=SAMPLE.user_id)
        begun = await services.connector.begin(wish, browser_bound=False, actor="demo")
        await asyncio.to_thread(_visit, begun.authorization_url)


def banner(base_url: str, admin_key: str, data_dir: Path) -> str:
    """What a person who has just started it wants to know."""
    return f"""
The token broker is running.

  API docs    {base_url}/docs
  Health      {base_url}/health-check
  Metrics     {base_url}/metrics
  Sandbox     {_SANDBOX_URL}  (an authorization server to play with)
  Admin key   {admin_key}

Fetch a fresh token of the sample user:

  curl -H "Authorization: Bearer {admin_key}" {base_url}/tokens/{SAMPLE.provider}/{SAMPLE.user_id}

Or call the sandbox's API as that user, and see no token:

  curl -H "Authorization: Bearer {admin_key}" {base_url}/proxy/{SAMPLE.provider}/{SAMPLE.user_id}/notes

Ctrl-C stops everything. The data stays in {data_dir}.
"""


def _visit(url: str) -> None:
    """Follows the redirects to the provider and back, as a browser does."""
    with _DIRECT.open(url, timeout=30) as page:
        page.read()


def _is_sandbox() -> bool:
    try:
        with _DIRECT.open(f"{_SANDBOX_URL}/_control", timeout=2) as answer:
            return b"reuse_detected" in answer.read()
    except (URLError, OSError):
        return False
