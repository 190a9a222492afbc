"""npm `oidc-provider` as a process of its own: a certified authorization server, which nobody here wrote."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import httpx

from tests.e2e.node import FOLDER
from tests.e2e.waiting import eventually


@dataclass(frozen=True)
class Registration:
    """A client that `oidc/server.mjs` knows."""

    client_id: str
    client_secret: str
    authentication: Literal["basic", "post"]


BASIC = Registration("broker", "secret of broker", "basic")
POST = Registration("broker-post", "secret of broker-post", "post")


@dataclass(frozen=True)
class Report:
    """What happened so far: token requests by grant type, refreshes by how they ended, the refresh tokens that are still
    good, and calendar requests by their answers, as `GET 200`, or `GET incremental 200` for those with a sync token."""

    arrived: Mapping[str, int]
    refreshes: Mapping[str, int]
    refresh_tokens: tuple[str, ...]
    calendar: Mapping[str, int]


class AuthorizationServer:
    """A running one, and what a resource server or its operator may ask of it."""

    def __init__(self, url: str, http: httpx.Client) -> None:
        self.url = url
        self._http = http

    @classmethod
    @contextmanager
    def running(
        cls, node: Path, *, redirect_uri: str, log: Path, myworld: str | None = None
    ) -> Iterator[Self]:
        """On a free port, until the block ends. At `myworld` is the host whose calendars it serves."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(node), "server.mjs"],
                cwd=FOLDER,
                env={**os.environ, "PORT": "0", "REDIRECT_URIS": redirect_uri, "MYWORLD": myworld or ""},
                stdin=subprocess.PIPE,  # it ends when this does
                stdout=output,
                stderr=output,
            )
        with process:
            try:
                url = _announced(process, log)
                with httpx.Client(base_url=url) as http:
                    yield cls(url, http)
            finally:
                process.terminate()

    def behave(self, **control: Any) -> None:
        """From now on; see `control` in `oidc/server.mjs`."""
        self._http.post("/_ctl", json=control).raise_for_status()

    def withdraw(self, user: str) -> None:
        """The user takes back all consent."""
        self._http.post("/_ctl", json={"revoke": user}).raise_for_status()

    def report(self) -> Report:
        fields = self._http.get("/_ctl").raise_for_status().json()
        refresh_tokens = tuple(fields["refresh_tokens"])
        return Report(fields["arrived"], fields["refreshes"], refresh_tokens, fields["calendar"])

    def await_refresh_request(self) -> None:
        """Returns once a first refresh has arrived."""
        eventually(lambda: self.report().arrived.get("refresh_token", 0) > 0)

    def user_of(self, access_token: str) -> str | None:
        """Whom the userinfo endpoint takes its bearer for; None where it refuses the token."""
        answer = self._http.get("/me", headers={"Authorization": f"Bearer {access_token}"})
        return answer.json()["sub"] if answer.status_code == 200 else None

    def is_active(self, token: str) -> bool:
        """RFC 7662: an access or a refresh token."""
        answer = self._http.post(
            "/token/introspection", data={"token": token}, auth=("broker", "secret+of+broker")
        )
        return answer.raise_for_status().json()["active"] is True


def _announced(process: subprocess.Popen[bytes], log: Path) -> str:
    """The URL that the process says it listens on."""

    def lines() -> list[str]:
        return [line for line in log.read_text().splitlines() if line.startswith("listening on ")]

    eventually(lambda: bool(lines()) or process.poll() is not None, seconds=30)
    assert lines(), f"the authorization server ended:\n{log.read_text()}"
    return lines()[0].removeprefix("listening on ")
