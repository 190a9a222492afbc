"""The hostile authorization server keeps the RFCs until it is told not to, and counts what it is asked."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from app.sandbox.server import Sandbox, running
from app.sandbox.state import State
from app.sandbox.tokens import Refused

CALLBACK = "http://127.0.0.1:9/callback"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
ASKED = {
    "response_type": "code",
    "client_id": "sandbox",
    "redirect_uri": CALLBACK,
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
    "state": "s t&te",
    "scope": "read write",
}
CREDENTIALS = {"client_id": "sandbox", "client_secret": "sandbox-secret"}
CLIENTS = {"sandbox": "sandbox-secret", "odd id": "p@ss:word/+%"}
AFTER = {"after_processing": True}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def redirected_with(self) -> dict[str, str]:
        """The parameters of the redirect back to the client."""
        assert self.headers["Location"].startswith(CALLBACK)
        return {
            name: values[0] for name, values in parse_qs(urlsplit(self.headers["Location"]).query).items()
        }


@dataclass(frozen=True)
class Client:
    """An OAuth client that takes every answer as it comes."""

    url: str
    http: aiohttp.ClientSession

    async def get(self, path: str, *, token: str | None = None, **params: str) -> Answer:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.http.get(
            self.url + path, params=params, headers=headers, allow_redirects=False
        ) as response:
            return Answer(response.status, dict(response.headers), await response.text())

    async def post(self, path: str, *, authorization: str = "", **form: str) -> Answer:
        headers = {"Authorization": authorization} if authorization else {}
        async with self.http.post(
            self.url + path, data=form, headers=headers, allow_redirects=False
        ) as response:
            return Answer(response.status, dict(response.headers), await response.text())

    async def control(self, path: str, body: object) -> Answer:
        async with self.http.post(self.url + path, json=body) as response:
            return Answer(response.status, dict(response.headers), await response.text())

    async def token(self, grant_type: str, **form: str) -> Answer:
        return await self.post("/token", grant_type=grant_type, **{**CREDENTIALS, **form})

    async def refresh(self, refresh_token: str, **form: str) -> Answer:
        return await self.token("refresh_token", refresh_token=refresh_token, **form)

    async def code(self, **asked: str) -> str:
        answer = await self.get("/authorize", **{**ASKED, "login_hint": "ada", **asked})
        return answer.redirected_with["code"]

    async def exchange(self, code: str, **form: str) -> Answer:
        asked = {"code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER, **form}
        return await self.token("authorization_code", **asked)

    async def works(self, access_token: str) -> bool:
        return (await self.get("/api/ping", token=access_token)).status == 200


@pytest.fixture
async def sandbox(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Sandbox]:
    """A sandbox that never fails but on demand: what goes wrong inside it shows in the log."""
    async with running(clients=CLIENTS) as running_sandbox:
        yield running_sandbox
    assert [record.getMessage() for record in caplog.get_records("call")] == []


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield Client(sandbox.url, http)


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in ASKED.items() if key != name}


def names_in(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


class TestAuthorizing:
    async def test_a_code_buys_tokens_that_work(self, client: Client) -> None:
        approval = await client.get("/authorize", **ASKED, login_hint="ada")
        assert approval.status == 302
        assert approval.redirected_with["state"] == ASKED["state"]
        assert approval.redirected_with["iss"] == client.url  # RFC 9207
        answer = await client.exchange(approval.redirected_with["code"])
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"
        tokens = answer.json
        assert tokens["access_token"].startswith("sat_")
        assert tokens["refresh_token"].startswith("srt_")
        assert (tokens["token_type"], tokens["expires_in"], tokens["scope"]) == ("Bearer", 300, "read write")
        pong = await client.get("/api/ping", token=tokens["access_token"])
        assert pong.json == {"user": "ada", "client_id": "sandbox", "scope": "read write"}

    async def test_a_redirect_uri_keeps_its_query(self, client: Client) -> None:
        answer = await client.get(
            "/authorize", **{**ASKED, "redirect_uri": f"{CALLBACK}?a=b"}, login_hint="ada"
        )
        assert answer.redirected_with["a"] == "b"
        assert "code" in answer.redirected_with

    @pytest.mark.parametrize(
        ("asked", "error"),
        [
            (without("code_challenge"), "invalid_request"),
            (without("code_challenge_method"), "invalid_request"),
            ({**ASKED, "code_challenge_method": "plain"}, "invalid_request"),
            ({**ASKED, "code_challenge": "short"}, "invalid_request"),
            (without("response_type"), "invalid_request"),
            ({**ASKED, "response_type": "token"}, "unsupported_response_type"),
            ({**ASKED, "scope": 'a "quoted" one'}, "invalid_scope"),
        ],
    )
    async def test_a_bad_request_is_refused_by_redirect(
        self, client: Client, asked: dict[str, str], error: str
    ) -> None:
        answer = await client.get("/authorize", **asked, login_hint="ada")
        assert answer.status == 302
        assert answer.redirected_with["error"] == error
        assert answer.redirected_with["state"] == ASKED["state"]

    @pytest.mark.parametrize(
        "asked",
        [
            {**ASKED, "client_id": "stranger"},
            without("client_id"),
            without("redirect_uri"),
            {**ASKED, "redirect_uri": "https://evil.example/callback"},
            {**ASKED, "redirect_uri": "http://127.0.0.1@evil.example/"},
            {**ASKED, "redirect_uri": "http://127.0.0.1:port/"},
            {**ASKED, "redirect_uri": f"{CALLBACK}#fragment"},
            {**ASKED, "redirect_uri": f"{CALLBACK}\r\nSet-Cookie: a=b"},
        ],
    )
    async def test_an_untrusted_target_is_never_redirected_to(
        self, client: Client, asked: dict[str, str]
    ) -> None:
        answer = await client.get("/authorize", **asked, login_hint="ada")
        assert answer.status == 400
        assert "Location" not in answer.headers

    async def test_a_registered_redirect_uri_is_compared_exactly(self) -> None:
        registered = "https://app.example/callback"
        async with running(redirect_uris=[registered]) as strict, aiohttp.ClientSession() as http:
            client = Client(strict.url, http)
            for uri, status in ((registered, 302), (f"{registered}/", 400), (CALLBACK, 400)):
                answer = await client.get("/authorize", **{**ASKED, "redirect_uri": uri}, login_hint="ada")
                assert answer.status == status

    async def test_the_consent_page_escapes_what_it_shows(self, client: Client) -> None:
        page = await client.get("/authorize", **{**ASKED, "state": '"><script>', "scope": "<b>"})
        assert page.status == 200
        assert page.headers["Content-Type"].startswith("text/html")
        assert "<script>" not in page.text
        assert "<b><b>" not in page.text
        assert 'value="&quot;&gt;&lt;script&gt;"' in page.text

    async def test_the_consent_page_allows_and_denies(self, client: Client) -> None:
        allowed = await client.post("/authorize", **ASKED, user="bob", decision="allow")
        assert allowed.status == 303
        tokens = (await client.exchange(allowed.redirected_with["code"])).json
        assert (await client.get("/userinfo", token=tokens["access_token"])).json["sub"] == "bob"
        denied = await client.post("/authorize", **ASKED, user="bob", decision="deny")
        assert denied.redirected_with["error"] == "access_denied"
        nameless = await client.post("/authorize", **ASKED, user="", decision="allow")
        assert nameless.status == 200


class TestExchangingCodes:
    async def test_a_second_use_revokes_what_the_first_one_brought(self, client: Client) -> None:
        code = await client.code()
        tokens = (await client.exchange(code)).json
        tokens = (await client.refresh(tokens["refresh_token"])).json
        again = await client.exchange(code)
        assert (again.status, again.json["error"]) == (400, "invalid_grant")
        assert not await client.works(tokens["access_token"])
        assert (await client.refresh(tokens["refresh_token"])).json["error"] == "invalid_grant"

    @pytest.mark.parametrize(
        "wrong",
        [
            {"code": "unknown"},
            {"redirect_uri": f"{CALLBACK}/"},
            {"code_verifier": "w" * 43},
            {"client_id": "odd id", "client_secret": CLIENTS["odd id"]},
        ],
    )
    async def test_a_code_is_bound_to_its_request(self, client: Client, wrong: dict[str, str]) -> None:
        code = await client.code()
        assert (await client.exchange(**{"code": code, **wrong})).json["error"] == "invalid_grant"
        assert (await client.exchange(code)).status == 200

    async def test_a_missing_parameter_is_named(self, client: Client) -> None:
        answer = await client.token("authorization_code", code=await client.code(), redirect_uri=CALLBACK)
        assert answer.json["error"] == "invalid_request"
        assert "code_verifier" in answer.json["error_description"]


class TestAuthenticatingClients:
    @staticmethod
    def basic(client_id: str, secret: str) -> str:
        return f"Basic {base64.b64encode(f'{client_id}:{secret}'.encode()).decode()}"

    async def test_basic_credentials_are_form_decoded(self, client: Client) -> None:
        authorization = self.basic("odd+id", "p%40ss%3Aword%2F%2B%25")
        answer = await client.post(
            "/token", authorization=authorization, grant_type="client_credentials", scope="x"
        )
        assert answer.status == 200
        assert "refresh_token" not in answer.json
        pong = await client.get("/api/ping", token=answer.json["access_token"])
        assert pong.json == {"user": None, "client_id": "odd id", "scope": "x"}

    @pytest.mark.parametrize(
        "authorization",
        [basic("sandbox", "wrong"), basic("stranger", ""), "Basic ?", "Bearer sandbox", "Basic"],
    )
    async def test_wrong_basic_credentials_are_challenged(self, client: Client, authorization: str) -> None:
        answer = await client.post("/token", authorization=authorization, grant_type="client_credentials")
        assert (answer.status, answer.json["error"]) == (401, "invalid_client")
        assert answer.headers["WWW-Authenticate"].startswith("Basic")

    @pytest.mark.parametrize(
        "wrong", [{"client_secret": "wrong"}, {"client_id": "stranger"}, {"client_id": ""}]
    )
    async def test_wrong_credentials_in_the_body_are_not(self, client: Client, wrong: dict[str, str]) -> None:
        answer = await client.token("client_credentials", **wrong)
        assert (answer.status, answer.json["error"]) == (401, "invalid_client")
        assert "WWW-Authenticate" not in answer.headers

    async def test_two_methods_at_once_are_refused(self, client: Client) -> None:
        authorization = self.basic("sandbox", "sandbox-secret")
        form = {"grant_type": "client_credentials"}
        both = await client.post("/token", authorization=authorization, **form, **CREDENTIALS)
        assert (both.status, both.json["error"]) == (400, "invalid_request")
        other = await client.post("/token", authorization=authorization, **form, client_id="odd id")
        assert (other.status, other.json["error"]) == (400, "invalid_request")
        same = await client.post("/token", authorization=authorization, **form, client_id="sandbox")
        assert same.status == 200

    async def test_what_is_no_form_is_refused(self, client: Client) -> None:
        assert (await client.control("/token", {**CREDENTIALS})).json["error"] == "invalid_request"
        repeated = [("grant_type", "client_credentials"), ("grant_type", "x"), *CREDENTIALS.items()]
        async with client.http.post(f"{client.url}/token", data=repeated) as response:
            assert (await response.json())["error"] == "invalid_request"
        assert (await client.token("password")).json["error"] == "unsupported_grant_type"


class TestRotating:
    async def test_strict_replaces_the_token_and_leaves_access_alone(
        self, sandbox: Sandbox, client: Client
    ) -> None:
        first = sandbox.grant("ada")
        second = (await client.refresh(first["refresh_token"])).json
        assert second["refresh_token"] != first["refresh_token"]
        assert await client.works(first["access_token"])
        assert await client.works(second["access_token"])

    async def test_strict_revokes_the_family_on_reuse(self, sandbox: Sandbox, client: Client) -> None:
        first, other = sandbox.grant("ada"), sandbox.grant("ada")
        second = (await client.refresh(first["refresh_token"])).json
        reuse = await client.refresh(first["refresh_token"])
        assert (reuse.status, reuse.json["error"]) == (400, "invalid_grant")
        assert sandbox.report()["reuse_detected"] == 1
        assert not await client.works(first["access_token"])
        assert not await client.works(second["access_token"])
        assert (await client.refresh(second["refresh_token"])).json["error"] == "invalid_grant"
        assert await client.works(other["access_token"])
        assert sandbox.report()["reuse_detected"] == 1

    async def test_graced_takes_a_spent_token_until_the_grace_is_over(
        self, sandbox: Sandbox, client: Client
    ) -> None:
        sandbox.control(settings={"rotation": "graced", "grace_seconds": 0.5})
        first = sandbox.grant("ada")
        second = (await client.refresh(first["refresh_token"])).json
        third = (await client.refresh(first["refresh_token"])).json
        assert len({each["refresh_token"] for each in (first, second, third)}) == 3
        await asyncio.sleep(0.5)
        assert (await client.refresh(first["refresh_token"])).json["error"] == "invalid_grant"
        assert sandbox.report()["reuse_detected"] == 1
        assert not await client.works(third["access_token"])

    async def test_never_keeps_the_refresh_token(self, sandbox: Sandbox, client: Client) -> None:
        sandbox.control(settings={"rotation": "never"})
        first = sandbox.grant("ada")
        for _ in range(2):
            answer = (await client.refresh(first["refresh_token"])).json
            assert "refresh_token" not in answer
            assert await client.works(answer["access_token"])
        assert sandbox.report()["refreshes"] == 2

    async def test_scope_narrows_and_never_widens(self, sandbox: Sandbox, client: Client) -> None:
        first = sandbox.grant("ada", scope="read write")
        wider = await client.refresh(first["refresh_token"], scope="read admin")
        assert wider.json["error"] == "invalid_scope"
        narrow = (await client.refresh(first["refresh_token"], scope="read")).json
        assert narrow["scope"] == "read"
        assert (await client.refresh(narrow["refresh_token"])).json["scope"] == "read write"

    async def test_another_clients_token_is_refused_and_kept(self, sandbox: Sandbox, client: Client) -> None:
        theirs = sandbox.grant("ada", client_id="odd id")
        assert (await client.refresh(theirs["refresh_token"])).json["error"] == "invalid_grant"
        revocation = await client.post("/revoke", **CREDENTIALS, token=theirs["refresh_token"])
        assert revocation.status == 400
        assert await client.works(theirs["access_token"])

    async def test_access_tokens_expire(self, sandbox: Sandbox, client: Client) -> None:
        sandbox.control(settings={"access_ttl": 0.5})
        tokens = sandbox.grant("ada")
        assert tokens["expires_in"] == 0
        assert await client.works(tokens["access_token"])
        await asyncio.sleep(0.5)
        assert not await client.works(tokens["access_token"])


class TestKilling:
    @pytest.mark.parametrize("which", ["access_token", "refresh_token"])
    async def test_revoking_either_token_kills_the_family(
        self, sandbox: Sandbox, client: Client, which: str
    ) -> None:
        tokens = sandbox.grant("ada")
        assert (await client.post("/revoke", **CREDENTIALS, token=tokens[which])).status == 200
        assert not await client.works(tokens["access_token"])
        assert (await client.refresh(tokens["refresh_token"])).json["error"] == "invalid_grant"
        assert sandbox.report()["reuse_detected"] == 0

    async def test_revoking_an_unknown_token_is_no_error(self, client: Client) -> None:
        assert (await client.post("/revoke", **CREDENTIALS, token="unknown")).status == 200
        assert (await client.post("/revoke", token="unknown")).status == 401

    async def test_a_client_revokes_its_own_access_token(self, client: Client) -> None:
        token = (await client.token("client_credentials")).json["access_token"]
        await client.post("/revoke", **CREDENTIALS, token=token)
        assert not await client.works(token)

    async def test_a_user_may_kill_everything_at_the_provider(self, client: Client) -> None:
        made = await client.control("/_control/grants", {"user": "ada", "scope": "read"})
        assert await client.works(made.json["access_token"])
        assert (await client.control("/_control/revoke", {"user": "ada"})).json == {"revoked": 1}
        assert not await client.works(made.json["access_token"])

    async def test_introspection_knows_live_tokens_only(self, sandbox: Sandbox, client: Client) -> None:
        tokens = sandbox.grant("ada", scope="read")
        for which in ("access_token", "refresh_token"):
            about = (await client.post("/introspect", **CREDENTIALS, token=tokens[which])).json
            assert about["active"] is True
            assert (about["sub"], about["scope"], about["client_id"]) == ("ada", "read", "sandbox")
        sandbox.revoke("ada")
        for token in (*(tokens[which] for which in ("access_token", "refresh_token")), "unknown"):
            assert (await client.post("/introspect", **CREDENTIALS, token=token)).json == {"active": False}

    async def test_resources_challenge_without_a_live_token(self, client: Client) -> None:
        for path in ("/api/ping", "/userinfo"):
            wrong = await client.get(path, token="wrong")
            assert wrong.status == 401
            assert 'error="invalid_token"' in wrong.headers["WWW-Authenticate"]
            missing = await client.get(path)
            assert missing.headers["WWW-Authenticate"] == 'Bearer realm="sandbox"'  # RFC 6750 section 3.1


class TestFaults:
    @pytest.mark.parametrize("after", [False, True])
    @pytest.mark.parametrize(
        ("kind", "seen"),
        [
            ("drop", aiohttp.ServerDisconnectedError),
            ("reset", aiohttp.ClientOSError),
            ("truncate", aiohttp.ClientPayloadError),
        ],
    )
    async def test_an_answer_may_be_lost_before_or_after_rotating(
        self, sandbox: Sandbox, client: Client, kind: str, seen: type[Exception], after: bool
    ) -> None:
        tokens = sandbox.grant("ada")
        sandbox.control(faults=[{"kind": kind, "after_processing": after}])
        with pytest.raises(seen):
            await client.refresh(tokens["refresh_token"])
        assert sandbox.report()["refreshes"] == int(after)
        retried = await client.refresh(tokens["refresh_token"])
        assert retried.status == (400 if after else 200)
        assert sandbox.report()["reuse_detected"] == int(after)

    async def test_a_reset_is_a_reset(self, sandbox: Sandbox) -> None:
        sandbox.control(faults=[{"kind": "reset", "endpoint": "api"}])
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(sandbox.url).port)
        writer.write(b"GET /api/ping HTTP/1.1\r\nHost: sandbox\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()

    async def test_a_client_that_leaves_amid_its_request_is_nobodys_error(self, sandbox: Sandbox) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(sandbox.url).port)
        writer.write(b"POST /token HTTP/1.1\r\nHost: sandbox\r\nContent-Length: 9\r\n\r\nhalf")
        await asyncio.sleep(0.1)
        writer.close()
        await asyncio.sleep(0.1)
        assert sandbox.report()["hits"] == {}

    async def test_a_status_is_answered_as_asked(self, sandbox: Sandbox, client: Client) -> None:
        html = {"status": 503, "body": "<h1>Sad</h1>", "content_type": "text/html"}
        throttled = {"status": 429, "headers": {"Retry-After": "7"}}
        slack = {"status": 200, "body": {"ok": False, "error": "token_revoked"}}
        sandbox.control(faults=[{"kind": "status", **each} for each in (html, throttled, slack)])
        first, second, third = [await client.refresh("any") for _ in range(3)]
        assert (first.status, first.text, first.headers["Content-Type"]) == (503, "<h1>Sad</h1>", "text/html")
        assert (second.status, second.headers["Retry-After"]) == (429, "7")
        assert third.json == slack["body"]
        assert sandbox.report()["unknown_refresh_tokens"] == 0

    async def test_a_200_may_be_useless(self, sandbox: Sandbox, client: Client) -> None:
        tokens = sandbox.grant("ada")
        kinds = ("garbage", "no_access_token", "wrong_type")
        sandbox.control(faults=[{"kind": kind} for kind in kinds])
        garbage, bare, mac = [await client.refresh(tokens["refresh_token"]) for _ in kinds]
        assert {garbage.status, bare.status, mac.status} == {200}
        with pytest.raises(json.JSONDecodeError):
            garbage.json  # noqa: B018
        assert "access_token" not in bare.json
        assert mac.json["token_type"] == "mac"
        assert sandbox.report()["refreshes"] == 0

    async def test_a_maimed_answer_may_hold_the_rotated_token(self, sandbox: Sandbox, client: Client) -> None:
        sandbox.control(faults=[{"kind": "no_access_token", **AFTER}])
        maimed = (await client.refresh(sandbox.grant("ada")["refresh_token"])).json
        assert "access_token" not in maimed
        assert (await client.refresh(maimed["refresh_token"])).status == 200

    async def test_a_body_may_be_big(self, sandbox: Sandbox, client: Client) -> None:
        sandbox.control(faults=[{"kind": "big"}, {"kind": "big", "size": 10}])
        assert len((await client.refresh("any")).text) > 5_000_000
        assert len((await client.refresh("any")).text) < 1_000

    async def test_a_body_may_drip(self, sandbox: Sandbox, client: Client) -> None:
        tokens = sandbox.grant("ada")
        sandbox.control(faults=[{"kind": "slow_drip", "interval": 0.001, **AFTER}, {"kind": "slow_drip"}])
        dripped = (await client.refresh(tokens["refresh_token"])).json
        assert await client.works(dripped["access_token"])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.refresh(dripped["refresh_token"])
        assert (await client.refresh(dripped["refresh_token"])).status == 200

    async def test_an_answer_may_be_late(self, sandbox: Sandbox, client: Client) -> None:
        sandbox.control(
            faults=[{"kind": "delay", "seconds": 0.1}, {"kind": "delay", "seconds": 0.1, **AFTER}]
        )
        tokens = sandbox.grant("ada")
        for _ in range(2):
            began = time.monotonic()
            tokens = (await client.refresh(tokens["refresh_token"])).json
            assert time.monotonic() - began >= 0.1
            assert await client.works(tokens["access_token"])

    @pytest.mark.parametrize("after", [False, True])
    async def test_a_client_that_gives_up_waiting_finds_what_was_promised(
        self, sandbox: Sandbox, client: Client, after: bool
    ) -> None:
        tokens = sandbox.grant("ada")
        sandbox.control(faults=[{"kind": "delay", "seconds": 0.4, "after_processing": after}])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.refresh(tokens["refresh_token"])
        await asyncio.sleep(0.4)
        assert sandbox.report()["refreshes"] == int(after)

    async def test_a_hang_ends_when_its_time_is_over(self, sandbox: Sandbox, client: Client) -> None:
        sandbox.control(faults=[{"kind": "hang", "seconds": 0.1}])
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await client.refresh("any")

    async def test_a_hang_ends_with_its_client(self, sandbox: Sandbox, client: Client) -> None:
        sandbox.control(faults=[{"kind": "hang"}])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.refresh("any")
        await asyncio.sleep(0.2)
        sandbox.control(reset_counters=True)
        assert sandbox.report()["max_in_flight"] == 0

    async def test_following_a_redirect_is_counted(self, sandbox: Sandbox, client: Client) -> None:
        sandbox.control(
            faults=[{"kind": "redirect"}, {"kind": "redirect", "location": "http://else.example/"}]
        )
        async with client.http.post(f"{client.url}/token", data=CREDENTIALS) as followed:
            assert followed.status == 200
        assert sandbox.report()["hits"] == {"token": 1, "elsewhere": 1}
        away = await client.refresh("any")
        assert (away.status, away.headers["Location"]) == (307, "http://else.example/")

    async def test_a_fault_waits_for_its_endpoint_and_its_user(
        self, sandbox: Sandbox, client: Client
    ) -> None:
        ada, bob = sandbox.grant("ada"), sandbox.grant("bob")
        sandbox.control(
            faults=[
                {"kind": "status", "endpoint": "api", "status": 418, "times": 2},
                {"kind": "status", "user": "bob", "times": -1},
            ]
        )
        assert (await client.refresh(ada["refresh_token"])).status == 200
        for _ in range(3):
            assert (await client.refresh(bob["refresh_token"])).status == 503
        teapots = [(await client.get("/api/ping", token=ada["access_token"])).status for _ in range(3)]
        assert teapots == [418, 418, 200]
        assert [fault["times"] for fault in sandbox.report()["faults"]] == [-1]
        sandbox.control(clear_faults=True)
        assert (await client.refresh(bob["refresh_token"])).status == 200

    @pytest.mark.parametrize("method", ["post /revoke", "post /introspect", "get /userinfo", "get /api/ping"])
    async def test_every_endpoint_may_fail(self, sandbox: Sandbox, client: Client, method: str) -> None:
        verb, path = method.split()
        request = client.post if verb == "post" else client.get
        endpoint = "api" if path == "/api/ping" else path[1:]
        kinds = ("garbage", "no_access_token", "redirect")
        sandbox.control(faults=[{"kind": kind, "endpoint": endpoint, **AFTER} for kind in kinds])
        assert [(await request(path)).status for _ in kinds] == [200, 200, 307]
        sandbox.control(faults=[{"kind": "drop", "endpoint": endpoint, "times": -1}])
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await request(path)

    async def test_an_authorization_may_fail_after_its_code_was_made(
        self, sandbox: Sandbox, client: Client
    ) -> None:
        kinds = ("no_access_token", "status", "slow_drip")
        sandbox.control(faults=[{"kind": kind, "endpoint": "authorize", **AFTER} for kind in kinds])
        answers = [await client.get("/authorize", **ASKED, login_hint="ada") for _ in kinds]
        assert [answer.status for answer in answers] == [200, 503, 302]


class TestSettings:
    async def test_they_change_what_answers_say(self, sandbox: Sandbox, client: Client) -> None:
        token = sandbox.grant("ada", scope="read")["refresh_token"]
        said = {"omit": None, "string": "300", "zero": 0, "normal": 300}
        for expires_in, expected in said.items():
            sandbox.control(settings={"expires_in": expires_in})
            answer = (await client.refresh(token)).json
            assert answer.get("expires_in") == expected
            token = answer["refresh_token"]
        for scope, spoken in {"omit": None, "read,write": "read,write", "normal": "read"}.items():
            sandbox.control(settings={"scope": scope})
            answer = (await client.refresh(token)).json
            assert answer.get("scope") == spoken
            token = answer["refresh_token"]

    async def test_a_change_leaves_the_other_settings_alone(self, client: Client) -> None:
        await client.control("/_control", {"settings": {"access_ttl": 5}})
        changed = await client.control("/_control", {"settings": {"rotation": "never"}})
        assert changed.json["settings"]["access_ttl"] == 5
        assert changed.json["settings"]["rotation"] == "never"

    @pytest.mark.parametrize(
        ("body", "named"),
        [
            ({"setting": {}}, "setting"),
            ({"settings": {"ttl": 1}}, "settings.ttl"),
            ({"settings": {"rotation": "sometimes"}}, "settings.rotation"),
            ({"settings": {"delay": "1"}}, "settings.delay"),
            ({"faults": [{"kind": "explode"}]}, "faults.0"),
            ({"faults": [{"kind": "drop", "seconds": 1}]}, "seconds"),
            ({"faults": [{"kind": "drop", "times": 0}]}, "times"),
            ([], "body"),
        ],
    )
    async def test_what_is_unknown_is_refused_by_name(
        self, client: Client, body: dict[str, Any], named: str
    ) -> None:
        with_good_part = {**body, "reset_counters": True} if isinstance(body, dict) else body
        await client.refresh("unknown")
        answer = await client.control("/_control", with_good_part)
        assert answer.status == 400
        assert named in answer.json["error_description"]
        assert (await client.get("/_control")).json["unknown_refresh_tokens"] == 1  # all of it or nothing

    async def test_grants_are_checked_too(self, sandbox: Sandbox, client: Client) -> None:
        for body in (
            {},
            {"user": ""},
            {"user": "ada", "client_id": "stranger"},
            {"user": "ada", "scope": '"'},
        ):
            assert (await client.control("/_control/grants", body)).status == 400
        async with client.http.post(f"{client.url}/_control", data=b"{") as response:
            assert response.status == 400
        with pytest.raises(Refused, match="faulst"):
            sandbox.control(faulst=[])


class TestCounting:
    async def test_hits_grant_types_and_refreshes(self, sandbox: Sandbox, client: Client) -> None:
        tokens = (await client.exchange(await client.code())).json
        await client.refresh(tokens["refresh_token"])
        await client.refresh("unknown")
        await client.get("/api/ping")
        counted = (await client.get("/_control")).json
        assert counted["hits"] == {"authorize": 1, "token": 3, "api": 1}
        assert counted["grant_types"] == {"authorization_code": 1, "refresh_token": 2}
        assert (counted["refreshes"], counted["refreshes_by_user"]) == (1, {"ada": 1})
        assert counted["unknown_refresh_tokens"] == 1
        sandbox.control(reset_counters=True)
        assert sandbox.report()["hits"] == {}

    async def test_requests_in_flight_are_counted_overall_and_by_family(
        self, sandbox: Sandbox, client: Client
    ) -> None:
        sandbox.control(settings={"delay": 0.3, "rotation": "never"})
        ada, bob = sandbox.grant("ada")["refresh_token"], sandbox.grant("bob")["refresh_token"]
        await asyncio.gather(*(client.refresh(token) for token in (ada, ada, bob)))
        await client.refresh(bob)
        counted = sandbox.report()
        assert counted["max_in_flight"] == 3
        assert counted["max_in_flight_per_family"] == 2
        assert counted["max_in_flight_by_user"] == {"ada": 2, "bob": 1}

    async def test_metadata_names_the_endpoints(self, client: Client) -> None:
        for path in ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"):
            said = (await client.get(path)).json
            assert said["issuer"] == client.url
            assert said["token_endpoint"] == f"{client.url}/token"
            assert said["code_challenge_methods_supported"] == ["S256"]


class TestState:
    async def test_a_code_lives_for_a_minute(self) -> None:
        state = State(clients=CLIENTS)
        asked = {"client_id": "sandbox", "redirect_uri": CALLBACK}
        code = state.authorize(user="ada", scope="read", code_challenge=CHALLENGE, now=0.0, **asked)
        with pytest.raises(Refused, match="expired"):
            state.exchange(code, code_verifier=VERIFIER, now=60.0, **asked)
        assert state.exchange(code, code_verifier=VERIFIER, now=59.9, **asked).ttl == 300

    async def test_expired_access_tokens_are_dropped_in_time(self) -> None:
        state = State(clients=CLIENTS)
        for now in (1000.0, 1001.0, 1301.0):
            state.grant(client_id="sandbox", user="ada", scope="read", now=now)
        assert len(state.access_tokens) == 1
        assert len(state.refresh_tokens) == 3


class TestRestarting:
    async def test_the_state_file_carries_tokens_over(self, tmp_path: Path) -> None:
        path = tmp_path / "state.json"
        async with running(state_path=path) as before, aiohttp.ClientSession() as http:
            first = before.grant("ada")
            second = (await Client(before.url, http).refresh(first["refresh_token"])).json
            revoked = before.grant("bob")
            before.revoke("bob")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert names_in(tmp_path) == ["state.json"]
        async with running(state_path=path) as after, aiohttp.ClientSession() as http:
            client = Client(after.url, http)
            assert await client.works(second["access_token"])
            assert not await client.works(revoked["access_token"])
            assert (await client.refresh(second["refresh_token"])).status == 200
            assert (await client.refresh(first["refresh_token"])).status == 400
            assert after.report()["reuse_detected"] == 1

    async def test_a_foreign_file_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "state.json"
        path.write_text("[]")
        with pytest.raises(ValueError, match=r"state\.json"):
            async with running(state_path=path):
                pass

    async def test_the_process_says_where_it_listens_and_ends_on_sigterm(self, tmp_path: Path) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app.sandbox", "--port", "0", "--client", "other:s:cret"),
            *("--state", str(tmp_path / "state.json")),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        assert line.startswith("sandbox listening on http://127.0.0.1:")
        async with aiohttp.ClientSession() as http:
            client = Client(line.split()[-1], http)
            form = {"client_id": "other", "client_secret": "s:cret"}
            assert (await client.token("client_credentials", **form)).status == 200
            await client.control("/_control", {"faults": [{"kind": "hang"}]})
            hanging = asyncio.create_task(client.refresh("any"))
            await asyncio.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(2):
                assert await process.wait() == 0
            with pytest.raises(aiohttp.ClientError):
                await hanging
        assert await process.stdout.read() == b""
