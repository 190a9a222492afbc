"""Providers that nobody wrote code for: a name and an issuer, or a name and a token endpoint, in one YAML file."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import httpx
import pytest
from aiohttp import web

from app.errors import ProviderError, ProviderUnavailable, Sent
from app.oauth import endpoints as endpoints_module
from app.oauth.client import OAuthClient
from app.oauth.endpoints import TokenEndpoints
from app.oauth.provider import Provider
from app.outbound.addresses import Reachable
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring, settings_for
from tests.stories.test_connect import RETURN_TO, begin, query_of, refused

RFC_8414 = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"
SECRET = {"client_id": "sandbox", "client_secret": "sandbox-secret"}
LOOPBACK = Reachable(loopback=True)


class Issuer:
    """Publishes at `url` what `answers` has for a path, else 404. Its token endpoint is the sandbox's."""

    def __init__(self, url: str, sandbox: Sandbox) -> None:
        self.url = url
        self.sandbox = sandbox
        self.answers: dict[str, tuple[int, Any]] = {RFC_8414: (200, self.metadata())}
        self.asked: Counter[str] = Counter()
        self.hangs = False

    def metadata(self, path: str = "", **changes: Any) -> dict[str, Any]:
        """The sandbox's endpoints under this issuer's name."""
        urls = {
            f"{name}_endpoint": f"{self.sandbox.url}/{place}"
            for name, place in (("authorization", "authorize"), ("token", "token"), ("revocation", "revoke"))
        }
        return {"issuer": self.url + path, **urls, **changes}

    async def serve(self, request: web.Request) -> web.Response:
        self.asked[request.path] += 1
        if self.hangs:
            await asyncio.sleep(30)
        status, body = self.answers.get(request.path, (404, {}))
        if isinstance(body, bytes):
            return web.Response(status=status, body=body, content_type="application/json")
        return web.json_response(body, status=status)

    @classmethod
    @asynccontextmanager
    async def running(cls, sandbox: Sandbox) -> AsyncIterator[Issuer]:
        listener = socket.create_server(("127.0.0.1", 0))
        issuer = cls(f"http://127.0.0.1:{listener.getsockname()[1]}", sandbox)
        app = web.Application()
        app.router.add_get("/{path:.*}", issuer.serve)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        try:
            yield issuer
        finally:
            await runner.cleanup()


@pytest.fixture
async def issuer(sandbox: Sandbox) -> AsyncIterator[Issuer]:
    async with Issuer.running(sandbox) as running:
        yield running


@pytest.fixture
def providers_dir(providers_dir: Path, sandbox: Sandbox, issuer: Issuer) -> Path:
    """With `found`, whose issuer is the sandbox, `odd`, whose issuer is ours, and `bare`."""
    for name, line in (
        ("found", f"issuer: {sandbox.url}"),
        ("odd", f"issuer: {issuer.url}"),
        ("bare", f"token_url: {sandbox.url}/token"),
    ):
        (providers_dir / f"{name}.yaml").write_text(f"name: {name}\n{line}\n")
    return providers_dir


@pytest.fixture
async def broker(database_url: str, providers_dir: Path, tmp_path: Path) -> AsyncIterator[Broker]:
    """Registered at them, and not patient."""
    settings = settings_for(
        database_url,
        providers_dir,
        data_dir=tmp_path / "var",
        clients={name: SECRET for name in ("found", "odd", "bare")},
        upstream_timeout_seconds=0.3,
    )
    async with Broker.running(settings) as running:
        yield running


@pytest.fixture
async def endpoints() -> AsyncIterator[TokenEndpoints]:
    made = TokenEndpoints(LOOPBACK, timeout_seconds=0.3)
    yield made
    await made.close()


def client_of(issuer: str, *, secret: str | None = "secret", **entry: Any) -> OAuthClient:
    provider = Provider.model_validate({"name": "odd", "display_name": "Odd", "issuer": issuer, **entry})
    return OAuthClient("odd", provider, "sandbox", secret)


async def allowed(broker: Broker, provider: str = "found") -> str:
    """The callback that ada's browser is sent to once she has agreed; without the host."""
    begun = await begin(broker, provider, browser_bound=False, return_to=RETURN_TO)
    async with httpx.AsyncClient(trust_env=False) as browser:
        answer = await browser.get(begun["authorization_url"])
    return urlunsplit(("", "", *urlsplit(answer.headers["location"])[2:]))


async def result(broker: Broker, callback: str) -> str:
    """What the application is told after that callback: `connected`, or the error."""
    told = query_of((await broker.http.get(callback)).headers["location"])
    return told.get("error") or told["status"]


def with_query(callback: str, **changes: str | None) -> str:
    """The callback with members of its query changed; None takes one out."""
    parts = urlsplit(callback)
    given = {name: values[0] for name, values in parse_qs(parts.query).items()} | changes
    return urlunsplit(parts._replace(query=urlencode({k: v for k, v in given.items() if v is not None})))


async def test_a_provider_known_by_its_issuer_alone_lives_its_whole_life(
    broker: Broker, sandbox: Sandbox
) -> None:
    assert await result(broker, await allowed(broker)) == "connected"
    first = await broker.token("found/ada")
    second = await broker.http.post("/tokens/found/ada/refresh", json={"generation": 1})
    assert (second.json()["generation"], second.json()["refreshed"]) == (2, True)
    checked = (await broker.http.post("/tokens/found/ada/validate")).json()
    assert (checked["valid"], checked["checked_by"]) == (True, "introspection")
    deleted = await broker.http.delete("/grants/found/ada")
    assert deleted.json() == {"revoked_upstream": True}
    assert first["access_token"] != second.json()["access_token"]
    assert sandbox.report()["hits"]["metadata"] == 1


async def test_a_provider_known_by_its_token_endpoint_alone_refreshes(
    broker: Broker, sandbox: Sandbox
) -> None:
    await broker.put("bare/ada", bring(sandbox.grant("ada")))
    assert (await broker.token("bare/ada"))["refreshed"]
    checked = (await broker.http.post("/tokens/bare/ada/validate")).json()
    assert (checked["valid"], checked["checked_by"]) == (True, "expiry")
    assert (await broker.http.delete("/grants/bare/ada")).json() == {"revoked_upstream": None}
    problem = await refused(broker, "bare")
    assert (problem["code"], problem["provider_code"]) == (
        "provider_rejected_client",
        "no_authorization_endpoint",
    )


async def test_an_answer_without_the_iss_that_is_advertised_is_refused(
    broker: Broker, sandbox: Sandbox
) -> None:
    for change in ({"iss": None}, {"iss": "https://evil.test"}, {"iss": f"{sandbox.url}/"}):
        assert await result(broker, with_query(await allowed(broker), **change)) == "provider_error", change
    without = with_query(await allowed(broker), iss=None, code=None, error="access_denied")
    assert await result(broker, without) == "provider_error"
    assert "token" not in sandbox.report()["hits"]
    assert await result(broker, await allowed(broker)) == "connected"


async def test_an_answer_with_the_iss_of_another_server_is_refused(broker: Broker, issuer: Issuer) -> None:
    callback = await allowed(broker, "odd")  # the sandbox answers in its own name, which is not the issuer's
    assert await result(broker, callback) == "provider_error"
    callback = await allowed(broker, "odd")
    assert await result(broker, with_query(callback, iss=issuer.url)) == "connected"
    assert await result(broker, with_query(await allowed(broker, "odd"), iss=None)) == "connected"


async def test_the_path_of_an_issuer_comes_behind_the_well_known_one(
    endpoints: TokenEndpoints, issuer: Issuer
) -> None:
    issuer.answers = {f"{RFC_8414}/tenant/1": (200, issuer.metadata("/tenant/1"))}
    completed = await endpoints.completed(client_of(f"{issuer.url}/tenant/1"))
    assert completed.provider.token_url == f"{issuer.sandbox.url}/token"
    assert dict(issuer.asked) == {f"{RFC_8414}/tenant/1": 1}


@pytest.mark.parametrize("status", [404, 302, 500])
async def test_openid_discovery_is_asked_where_rfc_8414_is_not_answered(
    endpoints: TokenEndpoints, issuer: Issuer, status: int
) -> None:
    path = "/tenant/1"
    issuer.answers = {
        f"{RFC_8414}{path}": (status, {}),
        f"{path}{OPENID}": (200, issuer.metadata(path, id_token_signing_alg_values_supported=["RS256"])),
    }
    completed = await endpoints.completed(client_of(f"{issuer.url}{path}"))
    assert completed.provider.token_url == f"{issuer.sandbox.url}/token"


async def test_what_the_entry_says_itself_is_not_asked_of_the_issuer(
    endpoints: TokenEndpoints, issuer: Issuer
) -> None:
    own = {"revocation_url": "https://other.example/revoke", "client_authentication": "post"}
    completed = await endpoints.completed(client_of(issuer.url, **own))
    assert completed.provider.revocation_url == "https://other.example/revoke"
    assert completed.provider.client_authentication == "post"
    whole = client_of(issuer.url, token_url="https://other.example/token")
    assert await endpoints.completed(whole) is whole


async def test_a_client_without_a_secret_says_who_it_is_as_public_clients_do(
    endpoints: TokenEndpoints, issuer: Issuer
) -> None:
    """Many servers take all ways; an empty secret sent with Basic they refuse."""
    methods = ["client_secret_basic", "client_secret_post", "none"]
    issuer.answers[RFC_8414] = 200, issuer.metadata(token_endpoint_auth_methods_supported=methods)
    public = await endpoints.completed(client_of(issuer.url, secret=None))
    confidential = await endpoints.completed(client_of(issuer.url))
    assert confidential.provider.client_authentication == "basic"
    assert public.provider.client_authentication == "none"


ERRORS = {
    "invalid_request": "operators",
    "unauthorized_client": "operators",
    "access_denied": "You did not allow the access",
    "unsupported_response_type": "operators",
    "invalid_scope": "not give this service all of the access",
    "server_error": "a fault of its own",
    "temporarily_unavailable": "too busy at the moment",
    "interaction_required": "sign in there and agree",
    "login_required": "sign in there and agree",
    "account_selection_required": "sign in there and agree",
    "consent_required": "sign in there and agree",
}
MADE_UP = [
    "made_up",
    "ACCESS_DENIED",
    "<script>alert(1)</script>",
    "a&status=connected",
    "\r\nX: y",
    "x" * 5000,
]


async def told(broker: Broker, sandbox: Sandbox, error: str, **body: Any) -> httpx.Response:
    """The answer to the browser that comes back with this error."""
    state = (await begin(broker, "found", browser_bound=False, **body))["state"]
    said = {"error_description": "<b>said</b>", "error_uri": "https://evil.test", "iss": sandbox.url}
    return await broker.http.get(
        f"/oauth/found/callback?{urlencode({'state': state, 'error': error, **said})}"
    )


async def test_each_error_that_a_specification_names_reaches_application_and_user(
    broker: Broker, sandbox: Sandbox
) -> None:
    for error, words in ERRORS.items():
        back = await told(broker, sandbox, error, return_to=f"{RETURN_TO}?tab=2")
        assert back.headers["location"] == f"{RETURN_TO}?tab=2&status=failed&error={error}"
        page = await told(broker, sandbox, error)
        assert page.status_code == 400
        assert words in page.text and "<b>" not in page.text and "evil" not in page.text, error
    assert "token" not in sandbox.report()["hits"]


async def test_an_error_that_nobody_specified_is_never_repeated(broker: Broker, sandbox: Sandbox) -> None:
    for error in MADE_UP:
        back = await told(broker, sandbox, error, return_to=RETURN_TO)
        assert back.headers["location"] == f"{RETURN_TO}?status=failed&error=provider_error", error
        page = await told(broker, sandbox, error)
        assert (page.status_code, error in page.text) == (400, False), error


BAD: list[tuple[str, str, tuple[int, Any]]] = [
    ("provider_unavailable", "no_metadata", (200, b"}{ nonsense")),
    ("provider_unavailable", "no_metadata", (200, b"")),
    ("provider_error", "issuer_mismatch", (200, {"issuer": "https://evil.test"})),
    ("provider_error", "answer_too_large", (200, b'{"a": "' + b"x" * 70_000 + b'"}')),
    ("provider_unavailable", "no_metadata", (404, {})),
    ("provider_unavailable", "no_metadata", (500, {})),
    ("provider_unavailable", "no_metadata", (302, {})),
]
CATEGORIES = {
    "provider_error": "unknown",
    "no_metadata": "transient",
    "timeout": "network",
    "ClientConnectorError": "network",
}


async def assert_harmless(broker: Broker, sandbox: Sandbox, code: str, provider_code: str, what: str) -> None:
    """A fetch and a connection fail by name; the grant and its history know nothing of it."""
    before = (await broker.http.get("/grants?provider=odd")).json()["items"][0]
    problem = (await broker.http.get("/tokens/odd/ada")).json()
    assert (problem["code"], problem["provider_code"]) == (code, provider_code), what
    assert problem["category"] == CATEGORIES[code if code == "provider_error" else provider_code], what
    assert problem["retryable"] and "connection is kept" in problem["detail"], what
    assert (await refused(broker, "odd"))["provider_code"] == provider_code, what
    after = (await broker.http.get("/grants?provider=odd")).json()["items"][0]
    assert after == before, what
    history = (await broker.http.get(f"/grants/{before['id']}/history")).json()["items"]
    assert history == [] and "token" not in sandbox.report()["hits"], what
    for breaker in broker.services.breakers:
        assert breaker.state == "closed", what
        breaker.reset()


async def test_metadata_that_cannot_be_had_or_believed_harms_no_grant(
    broker: Broker, sandbox: Sandbox, issuer: Issuer
) -> None:
    await broker.put("odd/ada", bring(sandbox.grant("ada")))
    for code, provider_code, answer in BAD:
        issuer.answers[RFC_8414] = answer
        await assert_harmless(broker, sandbox, code, provider_code, f"{answer!r:.60}")
    wrong = issuer.metadata(token_endpoint="http://evil.test/token")
    issuer.answers[RFC_8414] = 200, wrong
    await assert_harmless(broker, sandbox, "provider_error", "endpoints_unusable", "http")
    issuer.hangs = True
    await assert_harmless(broker, sandbox, "provider_unavailable", "timeout", "hangs")
    issuer.hangs = False
    issuer.answers[RFC_8414] = 200, issuer.metadata()
    assert (await broker.token("odd/ada"))["refreshed"]  # nothing of it was remembered


async def test_a_valid_token_is_answered_while_the_issuer_is_away(
    broker: Broker, sandbox: Sandbox, issuer: Issuer
) -> None:
    await broker.put("odd/ada", bring(sandbox.grant("ada"), expires_in=100))
    issuer.answers.clear()
    token = await broker.token("odd/ada", min_ttl=200)
    assert (token["generation"], token["degraded"]) == (1, "provider_unavailable")


async def test_a_grant_is_deleted_here_while_its_issuer_hangs(
    broker: Broker, sandbox: Sandbox, issuer: Issuer
) -> None:
    await broker.put("odd/ada", bring(sandbox.grant("ada")))
    issuer.hangs = True
    assert (await broker.http.delete("/grants/odd/ada")).json() == {"revoked_upstream": False}
    assert (await broker.http.get("/tokens/odd/ada")).json()["code"] == "grant_not_found"


async def test_an_issuer_is_asked_once_an_hour(endpoints: TokenEndpoints, issuer: Issuer) -> None:
    client = client_of(issuer.url)
    for _ in range(5):
        await endpoints.completed(client)
    assert (issuer.asked[RFC_8414], endpoints_module._PUBLISHED_SECONDS) == (1, 3600)


async def test_what_was_published_counts_while_the_issuer_is_away_and_is_renewed_afterwards(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints_module, "_PUBLISHED_SECONDS", 0.02)
    client, endpoints = client_of(issuer.url), TokenEndpoints(LOOPBACK, timeout_seconds=0.1)

    async def token_url_later() -> str | None:
        await asyncio.sleep(0.03)
        return (await endpoints.completed(client)).provider.token_url

    known = await token_url_later()
    for answer in ((500, {}), (404, {}), (200, b"garbage"), (200, {"issuer": "https://evil.test"})):
        issuer.answers[RFC_8414] = answer
        assert await token_url_later() == known, answer
    issuer.hangs = True
    assert await token_url_later() == known
    issuer.hangs = False
    issuer.answers[RFC_8414] = 200, issuer.metadata(token_endpoint=f"{issuer.url}/moved")
    assert await token_url_later() == f"{issuer.url}/moved"
    await endpoints.close()


async def test_requests_at_once_ask_the_issuer_once(endpoints: TokenEndpoints, issuer: Issuer) -> None:
    await asyncio.gather(*(endpoints.completed(client_of(issuer.url)) for _ in range(20)))
    assert issuer.asked[RFC_8414] == 1


async def test_a_failure_to_discover_always_says_that_nothing_was_sent(
    endpoints: TokenEndpoints, issuer: Issuer
) -> None:
    issuer.answers[RFC_8414] = 200, {"issuer": "https://evil.test"}
    with pytest.raises(ProviderError) as unusable:
        await endpoints.refresh(client_of(issuer.url), refresh_token="rt")
    issuer.hangs = True
    with pytest.raises(ProviderUnavailable) as hung:
        await endpoints.refresh(client_of(issuer.url), refresh_token="rt")
    with pytest.raises(ProviderUnavailable) as away:
        await endpoints.refresh(client_of("http://127.0.0.1:1"), refresh_token="rt")
    assert {error.value.sent for error in (unusable, hung, away)} == {Sent.NOT_SENT}


async def test_an_issuer_that_keeps_hanging_is_left_alone(
    broker: Broker, sandbox: Sandbox, issuer: Issuer
) -> None:
    """As any other endpoint is: each request would wait for it else."""
    for number in range(6):
        await broker.put(f"odd/user-{number}", bring(sandbox.grant(f"user-{number}")))
    issuer.hangs = True
    codes = [(await broker.http.get(f"/tokens/odd/user-{number}")).json() for number in range(6)]
    assert {problem["code"] for problem in codes} == {"provider_unavailable"}
    assert codes[-1]["provider_code"] == "breaker_open"
    assert issuer.asked[RFC_8414] == 3


async def test_a_secret_may_be_left_out_only_where_the_issuer_tells_whether_it_is_needed(
    broker: Broker,
) -> None:
    statuses = {}
    for name in ("found", "bare"):
        body = {"catalogue": name, "client_id": "public"}
        statuses[name] = (await broker.http.put(f"/clients/{name}-public", json=body)).status_code
    assert statuses == {"found": 201, "bare": 422}
