"""What is passed on, and what is not: requests to a provider's API and its answers, in process."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import pytest

from app.metrics import PROXIED
from app.sandbox.server import Sandbox
from tests.broker import Broker
from tests.gateway.conftest import connect
from tests.gateway.upstream import BASE, Upstream, body, late, pieces, reset, status

PREFIXES = ("", "/api/v1")


async def test_a_call_goes_out_with_the_grants_token_and_comes_back_as_it_is(
    connected: Broker, upstream: Upstream
) -> None:
    upstream.answers = [body(b"tea", 418, Content_Type="text/plain", X_Acme="1", ETag='"7"')]
    for prefix in PREFIXES:
        answer = await connected.http.get(f"{prefix}/proxy/acme/ada/pots/7?brew=now&x=%2F")
        assert (answer.status_code, answer.content) == (418, b"tea")
        assert answer.headers["x-acme"] == "1" and answer.headers["etag"] == '"7"'
        assert answer.headers["x-broker-attempts"] == "1" and answer.headers["x-broker-cache"] == "miss"
        grant = (await connected.http.get("/grants", params={"provider": "acme"})).json()["items"][0]
        assert answer.headers["x-broker-grant"] == grant["id"]
        assert upstream.seen[-1].target == f"{BASE}/pots/7?brew=now&x=%2F"
        token = (await connected.token("acme/ada"))["access_token"]
        assert upstream.seen[-1].headers["authorization"] == f"Bearer {token}"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "REPORT"])
async def test_every_method_is_passed_on_with_its_body(
    connected: Broker, upstream: Upstream, method: str
) -> None:
    content = None if method == "GET" else b'{"a": 1}'
    answer = await connected.http.request(method, "/proxy/acme/ada/things", content=content)
    assert answer.json() == {"hello": "world"}
    assert (upstream.seen[0].method, upstream.seen[0].body) == (method, content or b"")


async def test_a_head_is_answered_without_a_body(connected: Broker, upstream: Upstream) -> None:
    upstream.answers = [body(b"x" * 100)]
    answer = await connected.http.head("/proxy/acme/ada/file")
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "100", b"")


async def test_a_trace_is_no_method_here(connected: Broker, upstream: Upstream) -> None:
    answer = await connected.http.request("TRACE", "/proxy/acme/ada/things")
    assert answer.json()["code"] == "method_not_allowed" and not upstream.seen


async def test_the_base_itself_can_be_asked(connected: Broker, upstream: Upstream) -> None:
    for path in ("/proxy/acme/ada", "/proxy/acme/ada/", "/proxy/acme/ada?q=1"):
        assert (await connected.http.get(path)).status_code == 200
    assert upstream.targets == [BASE, BASE, f"{BASE}?q=1"]


async def test_an_expired_token_is_refreshed_before_the_call(
    broker: Broker, sandbox: Sandbox, upstream: Upstream
) -> None:
    await connect(broker, sandbox, expires_in=-1)
    answer = await broker.http.get("/proxy/acme/ada/me")
    assert (answer.status_code, answer.headers["x-broker-attempts"], len(upstream.seen)) == (200, "1", 1)


async def test_an_account_is_named_by_a_header(
    connected: Broker, sandbox: Sandbox, upstream: Upstream
) -> None:
    other = await connected.put(
        "acme/ada", {"access_token": sandbox.grant("ada")["access_token"]}, account="büro"
    )
    answer = await connected.http.get("/proxy/acme/ada/me", headers={"X-Broker-Account": "b%C3%BCro"})
    assert answer.headers["x-broker-grant"] == other["id"]
    wrong = await connected.http.get("/proxy/acme/ada/me", headers={"X-Broker-Account": ".."})
    assert wrong.json()["errors"][0]["field"] == "header.x-broker-account" and len(upstream.seen) == 1


async def test_what_belongs_to_the_caller_or_a_connection_is_not_sent_on(
    connected: Broker, upstream: Upstream
) -> None:
    headers = {
        "Cookie": "session=1",
        "X-Forwarded-For": "10.0.0.1",
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "for=10.0.0.1",
        "X-Real-IP": "10.0.0.1",
        "Via": "1.1 proxy",
        "Connection": "keep-alive, X-Hop",
        "X-Hop": "1",
        "Keep-Alive": "timeout=5",
        "TE": "trailers",
        "Proxy-Authorization": "Basic eDp5",
        "X-Broker-Retry": "1",
        "X-HTTP-Method-Override": "DELETE",
        "X-Request-ID": "mine",
        "Prefer": 'wait=5, outlook.timezone="a, b"',
        "If-None-Match": '"7"',
        "X-Custom": "kept",
    }
    await connected.http.get("/proxy/acme/ada/me", headers=headers)
    kept = upstream.seen[0].headers
    for name in headers.keys() - {"Prefer", "If-None-Match", "X-Custom", "Connection"}:
        assert name.lower() not in kept, name
    assert kept.get("connection", "keep-alive") == "keep-alive"
    assert (kept["prefer"], kept["if-none-match"], kept["x-custom"]) == (
        'outlook.timezone="a, b"',
        '"7"',
        "kept",
    )
    assert kept["host"] == f"127.0.0.1:{upstream.port}"


async def test_headers_of_the_catalogue_are_defaults(connected: Broker, upstream: Upstream) -> None:
    http = connected.http
    for name in ("accept", "accept-encoding", "user-agent"):
        del http.headers[name]
    await http.get("/proxy/acme/ada/me")
    await http.get("/proxy/acme/ada/me", headers={"ACCEPT": "text/html", "User-Agent": "me/1"})
    first, second = (seen.headers for seen in upstream.seen)
    assert (first["accept"], first["accept-encoding"]) == ("text/x-acme", "identity")
    assert (second["accept"], second["user-agent"]) == ("text/html", "me/1")


async def test_what_is_the_providers_own_or_a_connections_is_not_answered(
    connected: Broker, upstream: Upstream
) -> None:
    told = {
        "Set-Cookie": "session=1",
        "Cache-Control": "public, max-age=60",
        "Connection": "X-Hop",
        "X-Hop": "1",
        "Strict-Transport-Security": "max-age=1",
        "Alt-Svc": 'h3=":443"',
        "Access-Control-Allow-Origin": "*",
        "Content-Security-Policy": "script-src *",
        "X-Broker-Grant": "forged",
        "X-Broker-Attempts": "99",
        "X-Request-ID": "theirs",
        "Link": '<https://x.example/2>; rel="next"',
        "Location": "https://elsewhere.example/",
    }
    upstream.answers = [body(b"<script>", 200, **{**told, "Content-Type": "text/html"})]
    answer = await connected.http.get("/proxy/acme/ada/me")
    for name in (
        "set-cookie",
        "x-hop",
        "alt-svc",
        "access-control-allow-origin",
        "strict-transport-security",
    ):
        assert name not in answer.headers, name
    assert answer.headers.get_list("cache-control") == ["no-store"]
    assert answer.headers.get_list("content-security-policy")[0].endswith("sandbox")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers.get_list("x-broker-attempts") == ["1"]
    assert answer.headers["x-upstream-request-id"] == "theirs" != answer.headers["x-request-id"]
    assert answer.headers["link"] == told["Link"] and answer.headers["location"] == told["Location"]


async def test_a_redirect_is_answered_and_not_followed(connected: Broker, upstream: Upstream) -> None:
    upstream.answers = [status(302, Location=f"http://127.0.0.1:{upstream.port}/elsewhere")]
    answer = await connected.http.get("/proxy/acme/ada/me", follow_redirects=False)
    assert answer.status_code == 302 and upstream.targets == [f"{BASE}/me"]


async def test_a_relative_address_is_not_led_to_this_service(connected: Broker, upstream: Upstream) -> None:
    there = f"http://127.0.0.1:{upstream.port}"
    told = {"Location": "/grants/acme/ada", "Content_Location": "7", "Link": '<?page=2>; rel="next"'}
    for method in ("DELETE", "GET"):
        upstream.answers = [status(307, **told)]
        answer = await connected.http.request(method, "/proxy/acme/ada/things/8?page=1")
        assert answer.headers["location"] == f"{there}/grants/acme/ada"
        assert answer.headers["content-location"] == f"{there}{BASE}/things/7"
        assert answer.headers["link"] == f'<{there}{BASE}/things/8?page=2>; rel="next"'


async def test_a_content_coding_is_left_as_it_is(connected: Broker, upstream: Upstream) -> None:
    upstream.answers = [body(gzip.compress(b"text" * 100), Content_Encoding="gzip")]
    async with connected.http.stream("GET", "/proxy/acme/ada/me") as answer:
        raw = b"".join([piece async for piece in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == "gzip" and gzip.decompress(raw) == b"text" * 100


async def test_a_status_that_http_does_not_have_is_a_problem(connected: Broker, upstream: Upstream) -> None:
    upstream.answers = [status(999)]
    answer = await connected.http.get("/proxy/acme/ada/me")
    assert (answer.status_code, answer.json()["provider_code"]) == (502, "http_999")


async def test_an_answer_that_says_it_is_too_large_is_a_problem(
    connected: Broker, upstream: Upstream
) -> None:
    upstream.answers = [body(bytes(129 * 1024))]
    answer = await connected.http.get("/proxy/acme/ada/me")
    assert (answer.status_code, answer.json()["provider_code"]) == (502, "answer_too_large")


async def test_a_body_that_is_too_large_is_refused_announced_or_not(
    connected: Broker, upstream: Upstream
) -> None:
    async def growing() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield bytes(4096)

    for content in (bytes(129 * 1024), growing()):
        answer = await connected.http.post("/proxy/acme/ada/files", content=content)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        assert "0.125 MiB" in answer.json()["detail"]
    assert not upstream.seen


async def test_a_large_body_streams_with_its_length_or_without(connected: Broker, upstream: Upstream) -> None:
    async def growing() -> AsyncIterator[bytes]:
        for number in range(20):
            yield bytes([number]) * 5000

    whole = b"".join(bytes([number]) * 5000 for number in range(20))
    for content in (whole, growing()):
        answer = await connected.http.put("/proxy/acme/ada/files/1", content=content)
        assert answer.status_code == 200
    first, second = upstream.seen
    assert first.body == second.body == whole
    assert first.headers["content-length"] == "100000" and second.headers["transfer-encoding"] == "chunked"


async def test_many_pieces_come_through_in_order(connected: Broker, upstream: Upstream) -> None:
    upstream.answers = [pieces(100, 1000)]
    answer = await connected.http.get("/proxy/acme/ada/file")
    assert answer.content == bytes(100_000)


async def test_a_provider_without_an_api_address_is_told_so(
    broker: Broker, sandbox: Sandbox, upstream: Upstream
) -> None:
    await connect(broker, sandbox, "bare/ada")
    answer = await broker.http.get("/proxy/bare/ada/me")
    assert answer.status_code == 422 and "api.base_url" in answer.json()["detail"] and not upstream.seen


async def test_a_foreign_grant_looks_like_an_absent_one(connected: Broker, upstream: Upstream) -> None:
    made = await connected.http.post(
        "/consumers", json={"name": "narrow", "scopes": ["proxy"], "users": ["b*"]}
    )
    key = (await connected.http.post(f"/consumers/{made.json()['id']}/keys", json={})).json()["key"]
    headers = {"Authorization": f"Bearer {key}"}
    foreign = await connected.http.get("/proxy/acme/ada/me", headers=headers)
    absent = await connected.http.get("/proxy/acme/bob/me", headers=headers)
    assert foreign.status_code == absent.status_code == 404
    differs = {"request_id", "user_id", "detail"}
    assert {k: v for k, v in foreign.json().items() if k not in differs} == {
        k: v for k, v in absent.json().items() if k not in differs
    }
    assert not upstream.seen


async def test_a_key_needs_the_scope(connected: Broker, upstream: Upstream) -> None:
    made = await connected.http.post("/consumers", json={"name": "reader", "scopes": ["tokens:read"]})
    key = (await connected.http.post(f"/consumers/{made.json()['id']}/keys", json={})).json()["key"]
    answer = await connected.http.get("/proxy/acme/ada/me", headers={"Authorization": f"Bearer {key}"})
    assert answer.json()["code"] == "forbidden"
    nobody = await connected.http.get("/proxy/acme/ada/me", headers={"Authorization": ""})
    assert nobody.json()["code"] == "unauthenticated" and not upstream.seen


async def test_a_use_is_on_record_and_in_the_metrics(connected: Broker) -> None:
    counted = PROXIED.labels("acme", "2xx")
    before = counted._value.get()
    for _ in range(3):
        await connected.http.get("/proxy/acme/ada/me")
    assert counted._value.get() == before + 3
    await connected.run("flush_disclosures")
    events = (await connected.http.get("/audit", params={"action": "token.used"})).json()["items"]
    assert [event["details"]["count"] for event in events] == [3] and events[0]["user_id"] == "ada"


async def test_the_callers_time_bounds_the_call(connected: Broker, upstream: Upstream) -> None:
    upstream.answers = [late(30)]
    answer = await asyncio.wait_for(
        connected.http.get("/proxy/acme/ada/me", headers={"Prefer": "wait=1"}), timeout=8
    )
    assert answer.status_code == 503 and answer.json()["provider_code"] == "timeout"
    assert len(upstream.seen) == 1


async def test_a_wrong_number_of_tries_is_refused(connected: Broker, upstream: Upstream) -> None:
    for wrong in ("6", "-1", "x", "", "1.0"):
        answer = await connected.http.get("/proxy/acme/ada/me", headers={"X-Broker-Retry": wrong})
        assert answer.json()["errors"][0]["field"] == "header.x-broker-retry"
    assert not upstream.seen


async def test_nothing_that_came_back_is_a_problem(connected: Broker, upstream: Upstream) -> None:
    upstream.answers = [reset]
    answer = await connected.http.get("/proxy/acme/ada/me", headers={"X-Broker-Retry": "2"})
    assert (answer.status_code, answer.json()["code"], len(upstream.seen)) == (503, "provider_unavailable", 2)
