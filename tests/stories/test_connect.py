"""Connecting an account: a service begins, a browser goes to the provider and comes back, a grant is there."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg
import httpx
import pytest

from app.clock import SystemClock
from app.connect.request import Wish
from app.connect.tickets import Tickets
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring, settings_for
from tests.postgres import as_owner

PUBLIC_URL = "http://127.0.0.1:8080"
RETURN_TO = "https://app.example.com/done"


class Browser:
    """A user's browser: it keeps cookies, reaches the broker and the provider, and has no API key."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    @classmethod
    @asynccontextmanager
    async def at(cls, broker: Broker, *, public_url: str = PUBLIC_URL) -> AsyncIterator[Browser]:
        mounts = {public_url: httpx.ASGITransport(app=broker.app)}
        async with httpx.AsyncClient(mounts=mounts, trust_env=False) as http:
            yield cls(http)

    async def leave(self, url: str) -> str:
        """Where the broker's page at `url` sends the browser."""
        answer = await self.http.get(url)
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    async def allow(self, url: str) -> str:
        """The way back from the provider, which allows everything to whom the login hint names."""
        answer = await self.http.get(url)
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    async def consent(self, url: str, *, user: str, decision: str = "allow") -> str:
        """The way back from the provider's consent page."""
        page = (await self.http.get(url)).text
        found = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page)
        fields = {html.unescape(name): html.unescape(value) for name, value in found}
        form = {**fields, "user": user, "decision": decision}
        answer = await self.http.post(url.partition("?")[0], data=form)
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    async def connect(self, authorization_url: str) -> httpx.Response:
        """All the way, with a login hint."""
        return await self.http.get(await self.allow(await self.leave(authorization_url)))


@dataclass(frozen=True)
class Earlier(SystemClock):
    """The machine's clock, put back."""

    by: timedelta

    def now(self) -> datetime:
        return super().now() - self.by


@pytest.fixture
async def broker(broker: Broker) -> Broker:
    """After its first tick, which would refresh whatever a test has just brought."""
    await until(lambda: broker.services.timetable.last_tick_at is not None)
    return broker


@pytest.fixture
async def browser(broker: Broker) -> AsyncIterator[Browser]:
    async with Browser.at(broker) as opened:
        yield opened


async def begin(broker: Broker, provider: str = "sandbox", **body: Any) -> dict[str, Any]:
    """Asks for an authorization URL; for ada, whom the sandbox then lets through, unless told otherwise."""
    wanted = {"user_id": "ada", "login_hint": "ada", **body}
    answer = await broker.http.post(f"/oauth/{provider}/authorize", json=wanted)
    assert answer.status_code == 201, answer.text
    return cast(dict[str, Any], answer.json())


async def refused(broker: Broker, provider: str = "sandbox", **body: Any) -> dict[str, Any]:
    """The problem that beginning ends with."""
    wanted = {"user_id": "ada", "login_hint": "ada", **body}
    answer = await broker.http.post(f"/oauth/{provider}/authorize", json=wanted)
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return cast(dict[str, Any], answer.json())


async def execute(database_url: str, statement: str) -> None:
    connection = await asyncpg.connect(as_owner(database_url))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def link_of(broker: Broker, age: timedelta) -> str:
    """A link for ada that was given out `age` ago."""
    tickets = Tickets(broker.services.vault, Earlier(by=age), base_url=PUBLIC_URL)
    return tickets.url(Wish("sandbox", "ada", "default", login_hint="ada"))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


async def has_grant(broker: Broker, path: str = "sandbox/ada") -> bool:
    return (await broker.http.get(f"/tokens/{path}")).status_code == 200


def assert_page(answer: httpx.Response, *, status: int, title: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert f"<h1>{title}</h1>" in answer.text


def assert_nothing_connected(answer: httpx.Response) -> None:
    assert_page(answer, status=400, title="Nothing was connected")


async def test_a_user_connects_an_account_and_its_token_is_fetched(
    broker: Broker, browser: Browser, sandbox: Sandbox
) -> None:
    begun = await begin(broker)
    assert_page(await browser.connect(begun["authorization_url"]), status=200, title="Connected")
    token = await broker.token("sandbox/ada")
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    about = await browser.http.get(f"{sandbox.url}/userinfo", headers=headers)
    assert (about.status_code, about.json()["sub"]) == (200, "ada")
    assert (token["generation"], token["scope"], token["account"]) == (1, "basic", "default")


async def test_a_user_who_is_asked_for_consent_connects_an_account(broker: Broker, browser: Browser) -> None:
    begun = await begin(broker, login_hint=None, account="work")
    back = await browser.consent(await browser.leave(begun["authorization_url"]), user="ada@work")
    assert_page(await browser.http.get(back), status=200, title="Connected")
    assert (await broker.token("sandbox/ada", account="work"))["account"] == "work"
    assert not await has_grant(broker)


async def test_a_connected_account_is_refreshed_like_any_other(broker: Broker, browser: Browser) -> None:
    await browser.connect((await begin(broker))["authorization_url"])
    first = await broker.token("sandbox/ada")
    answer = await broker.http.post("/tokens/sandbox/ada/refresh", json={"generation": 1})
    assert (answer.status_code, answer.json()["generation"]) == (200, 2)
    assert answer.json()["access_token"] != first["access_token"]


@pytest.mark.parametrize("bound", [True, False])
async def test_the_provider_is_asked_with_pkce_and_the_registered_redirect_uri(
    broker: Broker, browser: Browser, sandbox: Sandbox, *, bound: bool
) -> None:
    begun = await begin(broker, browser_bound=bound)
    url = begun["authorization_url"]
    asked = await browser.leave(url) if bound else url
    fields = query_of(asked)
    assert asked.partition("?")[0] == f"{sandbox.url}/authorize"
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", fields.pop("code_challenge"))
    assert fields == {
        "response_type": "code",
        "client_id": "sandbox",
        "redirect_uri": f"{PUBLIC_URL}/api/v1/oauth/sandbox/callback",
        "state": begun["state"],
        "scope": "basic",
        "login_hint": "ada",
        "code_challenge_method": "S256",
    }


async def test_each_attempt_has_its_own_state_and_challenge(broker: Broker, browser: Browser) -> None:
    urls = [await browser.leave((await begin(broker))["authorization_url"]) for _ in range(2)]
    one, other = map(query_of, urls)
    assert one["state"] != other["state"]
    assert one["code_challenge"] != other["code_challenge"]


async def test_the_redirect_uri_follows_the_public_url(
    database_url: str, providers_dir: Path, tmp_path: Path
) -> None:
    public_url = "https://broker.example.com"
    settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var", public_url=public_url)
    async with Broker.running(settings) as broker, Browser.at(broker, public_url=public_url) as browser:
        begun = await begin(broker)
        assert begun["authorization_url"].startswith(f"{public_url}/api/v1/connect/")
        opened = await browser.http.get(begun["authorization_url"])
    asked = query_of(opened.headers["location"])
    assert asked["redirect_uri"] == f"{public_url}/api/v1/oauth/sandbox/callback"
    assert "; Secure" in opened.headers["set-cookie"]


async def test_an_attempt_ends_after_ten_minutes(broker: Broker) -> None:
    began = broker.services.clock.now()
    ends = datetime.fromisoformat((await begin(broker))["expires_at"])
    assert timedelta(minutes=9, seconds=50) < ends - began < timedelta(minutes=10, seconds=10)


async def test_scopes_are_those_asked_for_else_the_defaults(broker: Broker, browser: Browser) -> None:
    begun = await begin(broker, scopes=["read", "write"])
    asked = await browser.leave(begun["authorization_url"])
    assert query_of(asked)["scope"] == "read write"
    await browser.http.get(await browser.allow(asked))
    assert (await broker.token("sandbox/ada", scope="write"))["scope"] == "read write"


async def test_an_answer_without_a_scope_means_the_scopes_asked_for(
    broker: Broker, browser: Browser, sandbox: Sandbox
) -> None:
    sandbox.control(settings={"scope": "omit"})
    await browser.connect((await begin(broker, scopes=["read", "write"]))["authorization_url"])
    assert (await broker.token("sandbox/ada"))["scope"] == "read write"


async def test_scopes_of_the_registration_come_before_those_of_the_catalogue(
    database_url: str, providers_dir: Path, tmp_path: Path
) -> None:
    client = {"client_id": "sandbox", "client_secret": "sandbox-secret", "scopes": ["calendar"]}
    settings = settings_for(
        database_url, providers_dir, data_dir=tmp_path / "var", clients={"sandbox": client}
    )
    async with Broker.running(settings) as broker:
        begun = await begin(broker, browser_bound=False)
    assert query_of(begun["authorization_url"])["scope"] == "calendar"


async def test_a_state_works_once(broker: Broker, browser: Browser, sandbox: Sandbox) -> None:
    back = await browser.allow(await browser.leave((await begin(broker))["authorization_url"]))
    assert (await browser.http.get(back)).status_code == 200
    assert_nothing_connected(await browser.http.get(back))
    assert sandbox.report()["grant_types"] == {"authorization_code": 1}
    assert await has_grant(broker)


async def test_of_two_callbacks_at_once_one_exchanges_the_code(
    broker: Broker, browser: Browser, sandbox: Sandbox
) -> None:
    back = await browser.allow(await browser.leave((await begin(broker))["authorization_url"]))
    answers = await asyncio.gather(*(browser.http.get(back) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400, 400]
    assert sandbox.report()["grant_types"] == {"authorization_code": 1}


async def test_a_refusal_by_the_user_uses_up_the_state(broker: Broker, browser: Browser) -> None:
    asked = await browser.leave((await begin(broker))["authorization_url"])
    denied = await browser.consent(asked.replace("&login_hint=ada", ""), user="ada", decision="deny")
    assert_nothing_connected(await browser.http.get(denied))
    assert_nothing_connected(await browser.http.get(await browser.allow(asked)))
    assert not await has_grant(broker)


async def test_an_attempt_that_took_too_long_is_refused(
    broker: Broker, browser: Browser, sandbox: Sandbox, database_url: str
) -> None:
    back = await browser.allow(await browser.leave((await begin(broker))["authorization_url"]))
    await execute(database_url, "UPDATE authorization_requests SET expires_at = now() - interval '1 second'")
    assert_nothing_connected(await browser.http.get(back))
    assert "token" not in sandbox.report()["hits"]


async def test_a_link_opened_after_its_attempt_ended_begins_a_new_one(
    broker: Broker, browser: Browser, database_url: str
) -> None:
    begun = await begin(broker)
    await execute(database_url, "UPDATE authorization_requests SET expires_at = now() - interval '1 second'")
    asked = await browser.leave(begun["authorization_url"])
    assert query_of(asked)["state"] != begun["state"]
    assert_page(await browser.http.get(await browser.allow(asked)), status=200, title="Connected")


async def test_a_link_works_for_a_day(broker: Broker, browser: Browser) -> None:
    young = link_of(broker, timedelta(hours=23, minutes=59))
    assert_page(await browser.connect(young), status=200, title="Connected")
    answer = await browser.http.get(link_of(broker, timedelta(hours=24, seconds=1)))
    assert_page(answer, status=400, title="This link does not work")
    assert "more than a day old" in answer.text
    assert "set-cookie" not in answer.headers


async def test_a_damaged_link_does_not_work(broker: Broker, browser: Browser) -> None:
    ticket = (await begin(broker))["authorization_url"].rpartition("/")[2]
    middle = len(ticket) // 2
    changed = ticket[:middle] + ("A" if ticket[middle] != "A" else "B") + ticket[middle + 1 :]
    for damaged in (ticket[:-8], changed, "A", "x" * 8192, "%00", "%FF", "%3Cscript%3E", "🙂"):
        answer = await browser.http.get(f"{PUBLIC_URL}/connect/{damaged}")
        assert_page(answer, status=400, title="This link does not work")
        assert "<script" not in answer.text


async def test_a_callback_in_another_browser_is_refused(
    broker: Broker, browser: Browser, sandbox: Sandbox
) -> None:
    back = await browser.allow(await browser.leave((await begin(broker))["authorization_url"]))
    async with Browser.at(broker) as stranger:
        assert_nothing_connected(await stranger.http.get(back))  # no cookie
        await stranger.leave((await begin(broker, user_id="eve"))["authorization_url"])
        assert_nothing_connected(await stranger.http.get(back))  # a cookie of its own
    assert "token" not in sandbox.report()["hits"]
    assert (await browser.http.get(back)).status_code == 200  # a stranger's try does not spoil it


async def test_a_callback_to_a_link_that_nobody_opened_is_refused(
    broker: Broker, browser: Browser, sandbox: Sandbox
) -> None:
    state = (await begin(broker))["state"]
    answer = await browser.http.get(f"{PUBLIC_URL}/oauth/sandbox/callback?code=stolen&state={state}")
    assert_nothing_connected(answer)
    assert "token" not in sandbox.report()["hits"]


async def test_one_browser_may_open_a_link_twice(broker: Broker, browser: Browser) -> None:
    link = (await begin(broker))["authorization_url"]
    await browser.leave(link)
    assert (await browser.connect(link)).status_code == 200
    assert (await browser.connect(link)).status_code == 200
    assert (await broker.token("sandbox/ada"))["generation"] == 2


async def test_one_browser_keeps_its_cookie_over_several_attempts(broker: Broker, browser: Browser) -> None:
    asked = [await browser.leave((await begin(broker, account=name))["authorization_url"]) for name in "ab"]
    for url in asked:
        assert (await browser.http.get(await browser.allow(url))).status_code == 200


async def test_two_browsers_may_open_one_link(broker: Broker, browser: Browser) -> None:
    link = (await begin(broker))["authorization_url"]
    mine = await browser.leave(link)
    async with Browser.at(broker) as phone:
        theirs = await phone.leave(link)
        assert query_of(mine)["state"] != query_of(theirs)["state"]
        assert (await phone.http.get(await phone.allow(theirs))).status_code == 200
    assert (await browser.http.get(await browser.allow(mine))).status_code == 200
    assert (await broker.token("sandbox/ada"))["generation"] == 2


async def test_without_a_bound_browser_any_browser_finishes(
    broker: Broker, browser: Browser, sandbox: Sandbox
) -> None:
    begun = await begin(broker, browser_bound=False)
    assert begun["authorization_url"].startswith(f"{sandbox.url}/authorize?")
    back = await browser.allow(begun["authorization_url"])
    assert not browser.http.cookies
    assert_page(await browser.http.get(back), status=200, title="Connected")
    assert_nothing_connected(await browser.http.get(back))


ALLOWED = [
    RETURN_TO,
    f"{RETURN_TO}/",
    f"{RETURN_TO}/calendar?month=3",
    f"{RETURN_TO}?next=/inbox#top",
    "https://APP.example.com:443/done",
]


async def test_a_browser_returns_to_where_the_allow_list_lets_it(broker: Broker, browser: Browser) -> None:
    for url in ALLOWED:
        back = await browser.connect((await begin(broker, return_to=url))["authorization_url"])
        assert back.status_code == 303, url
        target = back.headers["location"]
        assert target.startswith(url.partition("?")[0])
        assert query_of(target) == {**query_of(url), "status": "connected"}
        assert urlsplit(target).fragment == urlsplit(url).fragment


TRICKS = [
    "https://app.example.com",
    "https://app.example.com/",
    "https://app.example.com/donee",
    "https://app.example.com/done/../admin",
    "https://app.example.com/done/..",
    "https://app.example.com/done/%2e%2e/admin",
    "https://app.example.com/done/.%2E/admin",
    "https://app.example.com/done\\..\\admin",
    "https://app.example.com.evil.test/done",
    "https://app.example.com@evil.test/done",
    "https://app.example.com:pw@evil.test/done",
    "https://evil.test/https://app.example.com/done",
    "https://evil.test\\@app.example.com/done",
    "https://evil.test#@app.example.com/done",
    "https://evil.test?https://app.example.com/done",
    "https://app.example.com:8443/done",
    "https://app.example.com:x/done",
    "http://app.example.com/done",
    "//app.example.com/done",
    "https:app.example.com/done",
    "https:///app.example.com/done",
    "/done",
    "javascript:alert(1)//https://app.example.com/done",
    "data:text/html,https://app.example.com/done",
    " https://app.example.com/done",
    "https://app.example.com/done\n",
    "https://app.example.com/done\r\nSet-Cookie: a=b",
    "https://app.example.com/\tdone",
    "https://app.example.com/done\x00",
    "https://äpp.example.com/done",
    "https://ａpp.example.com/done",
    "",
]


async def test_a_browser_returns_nowhere_else(broker: Broker) -> None:
    taken = []
    for url in TRICKS:
        wanted = {"user_id": "ada", "return_to": url}
        answer = await broker.http.post("/oauth/sandbox/authorize", json=wanted)
        if answer.status_code != 422 or not answer.json()["errors"][0]["field"].endswith("return_to"):
            taken.append(url)
    assert taken == []


async def test_a_user_who_refuses_is_sent_back_with_the_reason(broker: Broker, browser: Browser) -> None:
    begun = await begin(broker, login_hint=None, return_to=f"{RETURN_TO}?tab=2")
    asked = await browser.leave(begun["authorization_url"])
    back = await browser.http.get(await browser.consent(asked, user="ada", decision="deny"))
    assert (back.status_code, back.headers["location"]) == (
        303,
        f"{RETURN_TO}?tab=2&status=failed&error=access_denied",
    )
    assert not await has_grant(broker)


SAID = {
    "error=access_denied": "access_denied",
    "error=temporarily_unavailable&error_description=%3Cb%3Esorry": "temporarily_unavailable",
    "error=%3Cscript%3Ealert(1)%3C/script%3E": "provider_error",
    "error=": "provider_error",
    "code=": "provider_error",
    "": "provider_error",
    "code=never-issued": "provider_error",
    "error=access_denied&code=never-issued": "access_denied",
}


async def test_what_the_provider_says_is_told_in_known_words(broker: Broker, browser: Browser) -> None:
    for sent, told in SAID.items():
        begun = await begin(broker, browser_bound=False, return_to=RETURN_TO)
        answer = await browser.http.get(f"{PUBLIC_URL}/oauth/sandbox/callback?state={begun['state']}&{sent}")
        assert answer.headers["location"] == f"{RETURN_TO}?status=failed&error={told}", sent
    assert not await has_grant(broker)


async def test_a_page_repeats_nothing_of_what_the_provider_says(broker: Broker, browser: Browser) -> None:
    for sent in SAID:
        state = (await begin(broker, browser_bound=False))["state"]
        page = await browser.http.get(f"{PUBLIC_URL}/oauth/sandbox/callback?state={state}&{sent}")
        assert_nothing_connected(page)
        assert not any(text in page.text for text in ("<script", "<b>", "sorry", "never-issued"))


async def test_a_callback_without_an_attempt_is_answered_by_a_page(broker: Broker, browser: Browser) -> None:
    for query in ("", "?code=a", "?state=", "?state=unknown&code=a", "?state=%00&code=a"):
        answer = await browser.http.get(f"{PUBLIC_URL}/oauth/sandbox/callback{query}")
        assert_nothing_connected(answer)


async def test_a_callback_at_another_provider_is_refused(
    broker: Broker, browser: Browser, sandbox: Sandbox
) -> None:
    back = await browser.allow(await browser.leave((await begin(broker))["authorization_url"]))
    for name in ("keeps", "google", "nobody"):
        assert_nothing_connected(await browser.http.get(back.replace("/oauth/sandbox/", f"/oauth/{name}/")))
    assert "token" not in sandbox.report()["hits"]
    assert (await browser.http.get(back)).status_code == 200


EXCHANGE_FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("provider_unavailable", {"kind": "status", "status": 500}),
    ("provider_unavailable", {"kind": "status", "status": 429}),
    ("provider_unavailable", {"kind": "drop"}),
    ("provider_error", {"kind": "garbage"}),
    ("provider_error", {"kind": "no_access_token"}),
    ("provider_error", {"kind": "big"}),
    ("provider_error", {"kind": "redirect"}),
    ("provider_error", {"kind": "status", "status": 400, "body": {"error": "invalid_grant"}}),
    ("provider_rejected_client", {"kind": "status", "status": 401, "body": {"error": "invalid_client"}}),
]


async def test_a_code_that_cannot_be_exchanged_leaves_no_grant(
    broker: Broker, browser: Browser, sandbox: Sandbox
) -> None:
    for told, fault in EXCHANGE_FAULTS:
        sandbox.control(faults=[{**fault, "times": 2}], clear_faults=True, reset_counters=True)
        back = await browser.connect((await begin(broker, return_to=RETURN_TO))["authorization_url"])
        assert back.headers["location"] == f"{RETURN_TO}?status=failed&error={told}", fault
        assert_nothing_connected(await browser.connect((await begin(broker))["authorization_url"]))
        report = sandbox.report()
        assert report["grant_types"] == {"authorization_code": 2}, fault  # a code is never sent twice
        assert "elsewhere" not in report["hits"]
        assert not await has_grant(broker)


async def test_a_provider_that_keeps_failing_is_left_alone(
    broker: Broker, browser: Browser, sandbox: Sandbox
) -> None:
    sandbox.control(faults=[{"kind": "drop", "times": -1}])
    for _ in range(4):
        assert_nothing_connected(await browser.connect((await begin(broker))["authorization_url"]))
    assert sandbox.report()["hits"]["token"] == 3


async def test_a_failed_exchange_leaves_the_present_grant_alone(
    broker: Broker, browser: Browser, sandbox: Sandbox
) -> None:
    issued = sandbox.grant("ada")
    await broker.put("sandbox/ada", bring(issued, expires_in=300))
    sandbox.control(faults=[{"kind": "status", "status": 400, "body": {"error": "invalid_grant"}}])
    assert_nothing_connected(await browser.connect((await begin(broker))["authorization_url"]))
    token = await broker.token("sandbox/ada")
    assert (token["access_token"], token["generation"]) == (issued["access_token"], 1)


async def test_pages_and_redirects_are_not_stored_and_tell_nobody_where_they_came_from(
    broker: Broker, browser: Browser
) -> None:
    begun = await begin(broker)
    opened = await browser.http.get(begun["authorization_url"])
    connected = await browser.http.get(await browser.allow(opened.headers["location"]))
    refused_page = await browser.http.get(f"{PUBLIC_URL}/oauth/sandbox/callback")
    damaged = await browser.http.get(f"{PUBLIC_URL}/connect/damaged")
    returned = await browser.connect((await begin(broker, return_to=RETURN_TO))["authorization_url"])
    for answer in (opened, connected, refused_page, damaged, returned):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
    for page in (connected, refused_page, damaged):
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "script-src" not in policy and "<script" not in page.text
        assert page.headers["x-content-type-options"] == "nosniff"


async def test_the_cookie_is_for_this_site_and_for_no_script(broker: Broker, browser: Browser) -> None:
    opened = await browser.http.get((await begin(broker))["authorization_url"])
    name, *attributes = opened.headers["set-cookie"].split("; ")
    assert re.fullmatch(r"broker_browser=[A-Za-z0-9_-]{43}", name)
    assert {"HttpOnly", "SameSite=lax", "Path=/", "Max-Age=86400"} == set(attributes)


async def test_a_cookie_that_is_none_of_ours_is_replaced(broker: Broker, browser: Browser) -> None:
    browser.http.cookies.set("broker_browser", "short", domain="127.0.0.1")
    opened = await browser.http.get((await begin(broker))["authorization_url"])
    assert re.match(r"broker_browser=[A-Za-z0-9_-]{43};", opened.headers["set-cookie"])


async def test_pages_escape_what_the_catalogue_says(
    database_url: str, providers_dir: Path, tmp_path: Path, sandbox: Sandbox
) -> None:
    entry = (providers_dir / "keeps.yaml").read_text().replace("name: keeps", "name: shady")
    (providers_dir / "shady.yaml").write_text(f"{entry}display_name: '<b>Shady</b> & \"Sons\"'\n")
    client = {"client_id": "sandbox", "client_secret": "sandbox-secret"}
    settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var", clients={"shady": client})
    async with Broker.running(settings) as broker, Browser.at(broker) as browser:
        page = await browser.connect((await begin(broker, "shady"))["authorization_url"])
    assert "&lt;b&gt;Shady&lt;/b&gt; &amp; &quot;Sons&quot; account" in page.text
    assert "<b>" not in page.text


async def test_connecting_again_begins_a_new_lineage_of_the_same_grant(
    broker: Broker, browser: Browser, sandbox: Sandbox
) -> None:
    imported = await broker.put("sandbox/ada", bring(sandbox.grant("ada")), metadata={"team": "blue"})
    sandbox.control(settings={"delay": 0.5})
    fetch = asyncio.create_task(broker.token("sandbox/ada"))
    await until(lambda: sandbox.report()["refreshes"] == 1)
    sandbox.control(settings={"delay": 0.0})
    await browser.connect((await begin(broker))["authorization_url"])
    connected = await broker.token("sandbox/ada")
    assert (connected["grant_id"], connected["generation"]) == (imported["id"], 2)
    assert (await fetch)["access_token"] == connected["access_token"]  # the old lineage's answer came later
    assert await broker.token("sandbox/ada") == {**connected, "expires_in": connected["expires_in"]}


async def test_a_dead_grant_comes_back_by_the_link_in_its_problem(
    broker: Broker, browser: Browser, sandbox: Sandbox
) -> None:
    imported = await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.revoke("ada")
    dead = (await broker.http.get("/tokens/sandbox/ada")).json()
    assert (dead["code"], dead["reason"], dead["action"]["kind"]) == (
        "reconnect_required",
        "invalid_grant",
        "reconnect",
    )
    asked = await browser.leave(dead["action"]["url"])
    assert query_of(asked)["scope"] == "basic"
    page = await browser.http.get(await browser.consent(asked, user="ada"))
    assert_page(page, status=200, title="Connected")
    revived = await broker.token("sandbox/ada")
    assert (revived["grant_id"], revived["generation"]) == (imported["id"], 2)


async def test_a_provider_that_gives_a_refresh_token_once_only_keeps_it(
    broker: Broker, browser: Browser, sandbox: Sandbox
) -> None:
    sandbox.control(settings={"rotation": "never"})
    await broker.put("keeps/ada", bring(sandbox.grant("ada"), expires_in=300))
    answer = {"access_token": "sat_second_consent", "token_type": "Bearer", "expires_in": 300}
    sandbox.control(faults=[{"kind": "status", "status": 200, "body": answer}])
    await browser.connect((await begin(broker, "keeps"))["authorization_url"])
    assert (await broker.token("keeps/ada"))["access_token"] == "sat_second_consent"
    refreshed = await broker.http.post("/tokens/keeps/ada/refresh", json={"generation": 2})
    assert (refreshed.status_code, refreshed.json()["generation"]) == (200, 3)


async def test_any_user_id_is_connected(broker: Broker, browser: Browser) -> None:
    for user_id in ("a/b@c d", "100%", "%2F", "ünïcødé 🙂", "a?b#c", "@client", "..."):
        begun = await begin(broker, user_id=user_id, account=user_id)
        assert (await browser.connect(begun["authorization_url"])).status_code == 200, user_id
        token = await broker.token(f"sandbox/{quote(user_id, safe='')}", account=user_id)
        assert (token["user_id"], token["account"]) == (user_id, user_id)


async def test_a_body_that_makes_no_sense_is_refused(broker: Broker) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "body.return_url": {"return_url": RETURN_TO},
        "body.user_id": {"user_id": ".."},
        "body.account": {"account": ""},
        "body.scopes": {"scopes": "read"},
        "body.scopes.0": {"scopes": ["read write"]},
        "body.login_hint": {"login_hint": "x" * 256},
        "body.return_to": {"return_to": f"{RETURN_TO}/{'x' * 2048}"},
        "body.browser_bound": {"browser_bound": "perhaps"},
    }
    for field, body in wrong.items():
        problem = await refused(broker, **body)
        assert problem["code"] == "validation_failed", field
        assert [error["field"] for error in problem["errors"]] == [field]


async def test_a_provider_without_a_registration_says_that_one_has_to_be_added(broker: Broker) -> None:
    problem = await refused(broker, "google")
    assert (problem["status"], problem["code"], problem["retryable"]) == (
        502,
        "provider_rejected_client",
        False,
    )
    assert problem["provider_code"] == "no_client_registered"
    assert "no registration at Google" in problem["detail"] and "operators" in problem["detail"]


async def test_an_unknown_provider_is_said_to_be_unknown(broker: Broker) -> None:
    problem = await refused(broker, "goggle")
    assert (problem["status"], problem["code"]) == (404, "unknown_provider")


async def test_old_attempts_are_swept_away(broker: Broker, database_url: str) -> None:
    await begin(broker)
    await execute(database_url, "UPDATE authorization_requests SET expires_at = now() - interval '2 hours'")
    await begin(broker)
    connection = await asyncpg.connect(as_owner(database_url))
    try:
        assert await connection.fetchval("SELECT count(*) FROM authorization_requests") == 1
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "damage", ["&code=other", "&state=other", "&iss=a%0D%0ASet-Cookie:%20a=b", "&error=a&error=b"]
)
async def test_a_callback_that_is_ambiguous_or_damaged_leads_nowhere(broker: Broker, damage: str) -> None:
    answer = await broker.http.get(f"/oauth/sandbox/callback?state=s&code=c{damage}")
    assert answer.status_code == 400
    assert "is damaged" in answer.text
    assert "set-cookie" not in answer.headers
