"""The broker as processes, and the services that ask them for tokens."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import quote

import httpx

from tests.broker import ADMIN_KEY, Replica, Replicas
from tests.e2e.authorization_server import BASIC, AuthorizationServer, Registration
from tests.e2e.browser import Browser

RETURN_TO = "https://app.example.com/done"

_ENTRY = """
name: oidc
issuer: {url}
authorization_url: {url}/auth
token_url: {url}/token
revocation_url: {url}/token/revocation
introspection_url: {url}/token/introspection
userinfo_url: {url}/me
client_authentication: {authentication}
scopes: {{default: [openid, email, offline_access, calendar.read]}}
authorize_params: {{prompt: consent}}  # OpenID Connect Core section 11: without it there is no offline access
access_token: {{lifetime_seconds: 60}}
refresh_token: {{rotation: {rotation}}}
api: {{base_url: "{url}", calendars: google}}
"""


class Consumer:
    """A service that asks one replica for tokens."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        self._http = httpx.Client(base_url=replica.url, headers=self.headers, timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def authorization_url(self, user: str, **wish: Any) -> str:
        """Where the user's browser begins."""
        body = {"user_id": user, "login_hint": user, **wish}
        answer = self._http.post("/api/v1/oauth/oidc/authorize", json=body)
        assert answer.status_code == 201, answer.text
        return cast(str, answer.json()["authorization_url"])

    def connect(self, user: str) -> None:
        """The user connects the account in a browser of their own."""
        with Browser() as browser:
            page = browser.open(self.authorization_url(user))
        assert page.status_code == 200, page.text

    def ask(self, user: str, **query: Any) -> httpx.Response:
        return self._http.get(token_path(user), params=query)

    def token(self, user: str, **query: Any) -> dict[str, Any]:
        """What `ask` is answered, if it is a token."""
        answer = self.ask(user, **query)
        assert answer.status_code == 200, answer.text
        return cast(dict[str, Any], answer.json())

    def refresh(self, user: str) -> httpx.Response:
        return self._http.post(f"{token_path(user)}/refresh")

    def delete(self, user: str) -> httpx.Response:
        return self._http.delete(f"/api/v1/grants/oidc/{quote(user, safe='')}")

    def sync_calendars(self, user: str, **wish: Any) -> httpx.Response:
        """Now, whatever was synced before."""
        return self._http.post("/api/v1/calendar/sync", json={"user_id": user, **wish})

    def open_page(self, user: str, **wish: Any) -> httpx.Response:
        """What user interfaces ask for when a page opens."""
        return self._http.post("/api/v1/calendar/sync/auto", json={"user_id": user, **wish})

    def ask_and_hang_up(self, user: str, op: AuthorizationServer, **query: Any) -> None:
        """Closes the connection while the refresh that was asked for is under way at the provider."""
        target = httpx.URL(token_path(user), params=query).raw_path
        lines = [b"GET " + target + b" HTTP/1.1", b"Host: broker", *map(_header, self.headers.items())]
        address = httpx.URL(self.replica.url)
        with socket.create_connection((address.host, address.port or 80)) as connection:
            connection.sendall(b"\r\n".join([*lines, b"", b""]))
            op.await_refresh_request()


class Brokers:
    """Starts replicas that are registered at the authorization server. The first of them is the public one."""

    def __init__(
        self, op: AuthorizationServer, replicas: Replicas, providers_dir: Path, public_url: str
    ) -> None:
        self._op = op
        self._replicas = replicas
        self._providers_dir = providers_dir
        self._public_url = public_url
        self._consumers = ExitStack()
        self._first = True

    def start(self, registration: Registration = BASIC, *, rotation: str = "strict") -> Consumer:
        """A consumer of one more replica."""
        entry = _ENTRY.format(url=self._op.url, authentication=registration.authentication, rotation=rotation)
        (self._providers_dir / "oidc.yaml").write_text(entry)
        port = str(httpx.URL(self._public_url).port) if self._first else ""  # else one of its own
        self._first = False
        replica = self._replicas.start(
            clients__oidc__client_id=registration.client_id,
            clients__oidc__client_secret=registration.client_secret,
            public_url=self._public_url,
            return_to=f'["{RETURN_TO}"]',
            port=port,
        )
        return self._consumers.enter_context(Consumer(replica))

    def close(self) -> None:
        self._consumers.close()


def token_path(user: str) -> str:
    return f"/api/v1/tokens/oidc/{quote(user, safe='')}"


def _header(field: tuple[str, str]) -> bytes:
    return f"{field[0]}: {field[1]}".encode()
