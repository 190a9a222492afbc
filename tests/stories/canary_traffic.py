"""What happens to a broker that has secrets, good and bad; and all that it answers meanwhile."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.sandbox.server import Sandbox
from tests.broker import Replica, bring
from tests.stories.test_connect import Browser

CLIENT_SECRET = "canary-client-secret-4711"
METADATA_SECRET = "srt_canary_in_a_wrong_field"
NOTE = "canary-note-in-metadata-4711"
ID_TOKEN = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJjYW5hcnktaWQtdG9rZW4ifQ.Y2FuYXJ5LXNpZ25hdHVyZQ"
ANSWERED = ("sat_canary_answered_by_hand", "srt_canary_answered_by_hand")
FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "status", "status": 500},
    {"kind": "truncate", "after_processing": True},
    {"kind": "garbage", "after_processing": True},
    {"kind": "reset", "after_processing": True},
    {"kind": "wrong_type", "after_processing": True},
    {"kind": "no_access_token", "after_processing": True},
    {"kind": "redirect"},
)
_TICKET = re.compile(r"/connect/([A-Za-z0-9_-]{40,})")
# Answers that hand out a secret to whom it is for.
_HANDS_OUT = re.compile(r"/tokens/[^/]+/[^/]+(/refresh)?$|/tokens/batch$|/oauth/[^/]+/authorize$|/keys$")


@dataclass
class Written:
    """All that was answered to somebody who is not to see secrets, by where, and the secrets that came up."""

    texts: list[tuple[str, bytes]] = field(default_factory=list)
    codes: set[str] = field(default_factory=set)
    secrets: dict[bytes, str] = field(default_factory=dict)

    def keep(self, what: str, *secrets: str) -> None:
        self.secrets.update({secret.encode(): what for secret in secrets})

    async def take(self, answer: httpx.Response) -> None:
        """For a client's hooks. A ticket is handed out with the problem of a dead grant, and is a secret elsewhere."""
        text = (await answer.aread()).decode()
        if answer.headers.get("content-type") == "application/problem+json":
            self.codes.add(answer.json()["code"])
            self.keep("ticket", *_TICKET.findall(text))
            text = _TICKET.sub("", text)
            self.texts.append(
                (f"problem of {answer.request.method} {answer.request.url.path}", text.encode())
            )
        elif not (answer.is_success and _HANDS_OUT.search(answer.request.url.path)):
            self.texts.append((f"answers {answer.request.url.path}", text.encode()))
        headers = {
            name: value for name, value in answer.headers.items() if name not in ("location", "set-cookie")
        }
        self.texts.append((f"headers of {answer.request.url.path}", repr(headers).encode()))


async def traffic(http: httpx.AsyncClient, replica: Replica, sandbox: Sandbox, written: Written) -> None:
    """`http` is a client of that replica with an admin key, whose answers `written` takes."""
    await _keys_and_clients(http, written)
    await _connected(http, written)
    await _used_and_failing(http, sandbox, written)
    await _mistakes(http, replica, written)


async def _keys_and_clients(http: httpx.AsyncClient, written: Written) -> None:
    body = {"catalogue": "sandbox", "client_id": "sandbox", "client_secret": CLIENT_SECRET}
    assert (await http.put("/clients/canary", json=body)).status_code in (200, 201)
    await http.put("/clients/canary", json={**body, "settings": {"tenant": CLIENT_SECRET}})
    made = await http.post(
        "/consumers", json={"name": f"canary {http.base_url.port}", "scopes": ["tokens:read"]}
    )
    key = (await http.post(f"/consumers/{made.json()['id']}/keys")).json()["key"]
    for wrong in (f"{key[:-1]}z", "canary-code-for-a-key", key):
        await http.put("/grants/sandbox/x", json={}, headers={"Authorization": f"Bearer {wrong}"})
    written.keep("API key", key.split("_")[2])
    written.keep("client secret", CLIENT_SECRET, "sandbox-secret")


async def _connected(http: httpx.AsyncClient, written: Written) -> None:
    wish = {"user_id": "ada", "login_hint": "ada"}
    begun = (await http.post("/oauth/sandbox/authorize", json=wish)).json()
    ticket = begun["authorization_url"].rpartition("/")[2]
    async with httpx.AsyncClient(event_hooks={"response": [written.take]}) as outside:
        browser = Browser(outside)
        leaving = str(httpx.URL(begun["authorization_url"]).copy_with(port=http.base_url.port))
        callback = httpx.URL(await browser.allow(await browser.leave(leaving)))
        callback = callback.copy_with(port=http.base_url.port)
        assert (await outside.get(callback)).status_code == 200
        assert (await outside.get(callback)).status_code == 400
        written.keep("cookie", *(cookie.value or "" for cookie in outside.cookies.jar))
    unfinished = (await http.post("/oauth/sandbox/authorize", json=wish)).json()
    code = callback.params["code"]
    await http.get(f"/oauth/sandbox/callback?code=canary-code-of-nobody&state={begun['state']}x")
    await http.get(f"/oauth/sandbox/callback?code={code}&state={unfinished['state']}")
    await http.get(f"/connect/{ticket[:-4]}")
    written.keep("code", code, "canary-code-of-nobody", "canary-code-for-a-key")
    written.keep("state", begun["state"], unfinished["state"])
    written.keep("ticket", ticket)


async def _used_and_failing(http: httpx.AsyncClient, sandbox: Sandbox, written: Written) -> None:
    assert (await http.get("/tokens/sandbox/ada")).status_code == 200
    assert (await http.post("/tokens/sandbox/ada/refresh", json={})).status_code in (200, 429)
    await http.post("/tokens/sandbox/ada/validate")
    for number, fault in enumerate(FAULTS):
        user = f"user-{http.base_url.port}-{number}"
        await http.put(f"/grants/sandbox/{user}", json=bring(sandbox.grant(user)))
        sandbox.control(faults=[fault])
        assert (await http.get(f"/tokens/sandbox/{user}")).status_code in (502, 503), fault
        sandbox.control(clear_faults=True)
        await http.get(f"/tokens/sandbox/{user}?wait=0")
    await _answered_by_hand(http, sandbox, written)
    eve, note = f"eve-{http.base_url.port}", {"note": NOTE, "refresh_token": NOTE}
    dead = bring({**sandbox.grant(eve), "refresh_token": f"srt_canary_never_issued_{eve}"})
    await http.put(f"/grants/sandbox/{eve}", json={**dead, "metadata": note})
    assert (await http.get(f"/tokens/sandbox/{eve}")).status_code == 409
    await http.put(f"/grants/sandbox/other-{eve}", json=dead)
    await http.get(f"/oauth/sandbox/health-check?user_id={eve}")
    await http.delete("/grants/sandbox/ada")
    sandbox.control(faults=[{"kind": "drop", "endpoint": "revoke"}])
    await http.delete(f"/grants/sandbox/user-{http.base_url.port}-0")
    written.keep("refresh token", str(dead["refresh_token"]))


async def _answered_by_hand(http: httpx.AsyncClient, sandbox: Sandbox, written: Written) -> None:
    """With an id token, as OpenID Connect has it, which nobody here needs."""
    user = f"by-hand-{http.base_url.port}"
    access, refresh = (f"{token}_{http.base_url.port}" for token in ANSWERED)
    await http.put(f"/grants/sandbox/{user}", json=bring(sandbox.grant(user)))
    body = {"access_token": access, "refresh_token": refresh, "id_token": ID_TOKEN, "token_type": "Bearer"}
    sandbox.control(faults=[{"kind": "status", "status": 200, "body": {**body, "expires_in": 300}}])
    assert (await http.get(f"/tokens/sandbox/{user}")).status_code == 200
    written.keep("access token", access)
    written.keep("refresh token", refresh)
    written.keep("id token", ID_TOKEN, *ID_TOKEN.split("."))


async def _mistakes(http: httpx.AsyncClient, replica: Replica, written: Written) -> None:
    wrong: tuple[dict[str, Any], ...] = (
        {"access_token": "sat_canary_in_a_body", "expires_in": "soon"},
        {"access_token": "sat_canary_in_a_body", "refresh_tokn": METADATA_SECRET},
        {"access_token": ["sat_canary_in_a_list"]},
        {"access_token": "sat_canary\n_with_a_break"},
    )
    for body in wrong:
        await http.put("/grants/sandbox/wrong", json=body)
    await http.put("/grants/sandbox/wrong", content=b'{"access_token": "sat_canary_not_json"')
    await http.get("/tokens/sandbox/nobody", params={"access_token": "sat_canary_in_a_query"})
    await http.get("/tokens/nowhere/nobody")
    await http.get("/srt_canary_in_a_path")
    await http.get("/audit", params={"cursor": "srt_canary_cursor"})
    await http.get("/tokens/sandbox/ada", headers={"X-API-Key": "brk_" + "0" * 16 + "_" + "5a" * 32})
    await http.get("/tokens/sandbox/ada", params={"scope": "x" * 40_000})
    await _not_http(
        replica, b"GET /tokens/sandbox/ada HTTP/1.1\r\nX-API-Key: srt_canary_not_http\r\nno header\r\n\r\n"
    )
    await _not_http(replica, b"srt_canary_not_http\r\n\r\n")
    written.keep(
        "mistake", METADATA_SECRET, "srt_canary_in_a_path", "srt_canary_cursor", "srt_canary_not_http"
    )
    written.keep("mistake", "sat_canary_in_a_body", "sat_canary_in_a_list", "sat_canary_in_a_query")
    written.keep("mistake", "_with_a_break", "sat_canary_not_json", "5a" * 32)


async def _not_http(replica: Replica, data: bytes) -> None:
    url = httpx.URL(replica.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(data)
    await asyncio.wait({asyncio.create_task(reader.read())}, timeout=5)
    writer.close()
