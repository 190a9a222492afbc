"""What is tried again, what is not, and what a refused token comes to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web

from app.apis.crowd import OF_GRANT
from app.gateway.call import Call
from app.grants.grant import GrantKey
from app.sandbox.server import Sandbox
from tests.broker import Broker
from tests.gateway.conftest import connect
from tests.gateway.upstream import Answering, Upstream, body, hello, late, reset, silence, status

IDEMPOTENT = ("GET", "PUT", "DELETE", "OPTIONS", "PROPFIND", "REPORT")
OTHERS = ("POST", "PATCH")
BUSY, BUSY_FOR_NOW = status(503), status(503, retry_after="0")
THROTTLED = status(429, retry_after="0")
FAILING: dict[str, Answering] = {
    "500": status(500),
    "502": status(502),
    "503": BUSY,
    "504": status(504),
    "520": status(520),
    "reset": reset,
}


async def call(broker: Broker, method: str = "GET", /, *, path: str = "me", **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await broker.http.request(method, f"/proxy/acme/ada/{path}", headers=named)


@pytest.mark.parametrize("failure", FAILING)
async def test_an_idempotent_call_that_failed_is_tried_again_and_any_other_is_not(
    connected: Broker, upstream: Upstream, failure: str
) -> None:
    for method in (*IDEMPOTENT, *OTHERS):
        upstream.seen.clear()
        upstream.answers = [FAILING[failure], hello]
        answer = await call(connected, method)
        if method in IDEMPOTENT:
            assert (answer.status_code, answer.headers["x-broker-attempts"]) == (200, "2"), method
            assert len(upstream.seen) == 2, method
        else:
            assert answer.status_code == (503 if failure == "reset" else int(failure)), method
            assert len(upstream.seen) == 1, method


async def test_an_idempotency_key_makes_a_call_repeatable(connected: Broker, upstream: Upstream) -> None:
    for name, failure in FAILING.items():
        upstream.seen.clear()
        upstream.answers = [failure, hello]
        answer = await call(connected, "POST", Idempotency_Key="7")
        assert (answer.status_code, answer.headers["x-broker-attempts"]) == (200, "2"), name
        assert {seen.headers["idempotency-key"] for seen in upstream.seen} == {"7"}


async def test_what_was_refused_before_it_was_done_is_tried_again(
    connected: Broker, upstream: Upstream
) -> None:
    for method in ("GET", *OTHERS):
        for refusal in (THROTTLED, status(429)):
            upstream.seen.clear()
            upstream.answers = [refusal, hello]
            answer = await call(connected, method)
            assert answer.status_code == 200 and len(upstream.seen) == 2


async def test_what_failed_may_have_been_done_whatever_time_it_names(
    connected: Broker, upstream: Upstream
) -> None:
    for method in ("GET", *OTHERS):
        upstream.seen.clear()
        upstream.answers = [BUSY_FOR_NOW, hello]
        answer = await call(connected, method)
        expected = (200, 2) if method == "GET" else (503, 1)
        assert (answer.status_code, len(upstream.seen)) == expected, method


async def test_a_key_that_is_not_sent_makes_nothing_repeatable(connected: Broker, upstream: Upstream) -> None:
    for headers in ({"Idempotency_Key": "7", "Connection": "idempotency-key"}, {"Idempotency_Key": ""}):
        upstream.seen.clear()
        upstream.answers = [reset, hello]
        assert (await call(connected, "POST", **headers)).status_code == 503
        assert len(upstream.seen) == 1


async def test_what_another_try_would_not_change_stands(connected: Broker, upstream: Upstream) -> None:
    for code in (200, 204, 301, 304, 400, 404, 408, 409, 422, 501, 505):
        upstream.seen.clear()
        upstream.answers = [status(code), hello]
        assert (await call(connected)).status_code == code and len(upstream.seen) == 1


async def test_the_last_answer_is_passed_on_as_it_is(connected: Broker, upstream: Upstream) -> None:
    upstream.answers = [body(b"sorry", 503, X_Acme="1")]
    answer = await call(connected)
    assert (answer.status_code, answer.content, answer.headers["x-acme"]) == (503, b"sorry", "1")
    assert answer.headers["x-broker-attempts"] == "3" and len(upstream.seen) == 3


@pytest.mark.parametrize(("asked", "tries"), [("0", 1), ("1", 1), ("2", 2), ("5", 5)])
async def test_the_caller_says_how_often(
    connected: Broker, upstream: Upstream, asked: str, tries: int
) -> None:
    upstream.answers = [BUSY]
    answer = await call(connected, X_Broker_Retry=asked)
    assert (answer.status_code, len(upstream.seen)) == (503, tries)


async def test_a_retry_after_is_kept_to(connected: Broker, upstream: Upstream) -> None:
    upstream.answers = [status(429, retry_after="1"), hello]
    began = asyncio.get_running_loop().time()
    assert (await call(connected)).status_code == 200
    assert asyncio.get_running_loop().time() - began >= 1


async def test_a_retry_after_beyond_the_callers_time_is_passed_on(
    connected: Broker, upstream: Upstream
) -> None:
    upstream.answers = [status(429, retry_after="5"), hello]
    answer = await call(connected, Prefer="wait=3")
    assert (answer.status_code, answer.headers["retry-after"], len(upstream.seen)) == (429, "5", 1)


async def test_a_refused_token_is_renewed_once_and_the_call_repeated_once(
    connected: Broker, sandbox: Sandbox, upstream: Upstream
) -> None:
    before = await connected.token("acme/ada")
    upstream.tokens = _Not(before["access_token"])
    answer = await call(connected, "POST")
    after = await connected.token("acme/ada")
    assert (answer.status_code, answer.headers["x-broker-attempts"]) == (200, "2")
    assert after["generation"] == before["generation"] + 1


async def test_fifty_calls_whose_token_is_refused_renew_it_once(
    connected: Broker, upstream: Upstream
) -> None:
    before = await connected.token("acme/ada")
    upstream.tokens = _Not(before["access_token"])
    answers = await asyncio.gather(*(call(connected, path=f"me?n={number}") for number in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert (await connected.token("acme/ada"))["generation"] == before["generation"] + 1
    assert len(upstream.seen) == sum(int(answer.headers["x-broker-attempts"]) for answer in answers) <= 100


async def test_a_token_that_is_refused_at_birth_is_not_renewed_again_for_a_while(
    connected: Broker, upstream: Upstream
) -> None:
    before = await connected.token("acme/ada")
    upstream.tokens = set()
    for _ in range(3):
        answer = await call(connected)
        assert answer.status_code == 401 and "invalid_token" in answer.headers["www-authenticate"]
    assert (await connected.token("acme/ada"))["generation"] == before["generation"] + 1
    assert len(upstream.seen) == 2 + 1 + 1


async def test_uploads_whose_tokens_are_all_refused_renew_one_of_them(
    connected: Broker, upstream: Upstream
) -> None:
    before = await connected.token("acme/ada")
    upstream.tokens = set()
    for _ in range(4):
        answer = await connected.http.put("/proxy/acme/ada/file", content=bytes(100_000))
        assert answer.status_code == 401
    assert (await connected.token("acme/ada"))["generation"] == before["generation"] + 1


async def test_no_tries_at_all_leave_a_401_as_it_is(connected: Broker, upstream: Upstream) -> None:
    before = await connected.token("acme/ada")
    upstream.tokens = set()
    assert (await call(connected, X_Broker_Retry="0")).status_code == 401
    assert len(upstream.seen) == 1
    assert (await connected.token("acme/ada"))["generation"] == before["generation"]


async def test_a_dead_grant_is_told_with_the_way_to_connect_it(
    connected: Broker, sandbox: Sandbox, upstream: Upstream
) -> None:
    upstream.tokens = set()
    await connected.http.post("/tokens/acme/ada/refresh", json={})
    sandbox.revoke("ada")
    answer = await call(connected)
    assert answer.status_code == 409 and answer.json()["code"] == "reconnect_required"


async def test_an_upload_that_has_begun_is_not_repeated(connected: Broker, upstream: Upstream) -> None:
    async def growing() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(5000)

    upstream.answers = [BUSY, hello]
    answer = await connected.http.put("/proxy/acme/ada/file", content=growing())
    assert (answer.status_code, answer.headers["x-broker-attempts"], len(upstream.seen)) == (503, "1", 1)


async def test_an_upload_whose_token_is_refused_finds_another_one_the_next_time(
    connected: Broker, upstream: Upstream
) -> None:
    before = await connected.token("acme/ada")
    upstream.tokens = _Not(before["access_token"])
    answers = [await connected.http.put("/proxy/acme/ada/file", content=bytes(100_000)) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [401, 200]


async def test_a_caller_in_a_hurry_does_not_open_the_breaker(connected: Broker, upstream: Upstream) -> None:
    upstream.answers = [late(1.5)]
    for _ in range(3):
        assert (await call(connected, Prefer="wait=1")).status_code == 503
    [breaker] = [each for each in connected.services.breakers if each.key.kind == "api"]
    assert breaker.failures == 0


@pytest.mark.parametrize("before", [0, 3])
async def test_an_upload_that_stalls_is_its_callers_trouble_and_nobody_elses(
    connected: Broker, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    async def stalling() -> AsyncIterator[bytes]:
        for _ in range(before):
            yield bytes(10_000)
        await asyncio.sleep(60)

    monkeypatch.setattr("app.oauth.exchange.IDLE_SECONDS", 0.3)
    upstream.reads = False
    upstream.answers = [silence]
    answer = await connected.http.put(
        "/proxy/acme/ada/file", content=stalling(), headers={"Content-Length": "100000"}
    )
    assert (answer.status_code, answer.json()["code"]) == (408, "request_timeout")
    [breaker] = [each for each in connected.services.breakers if each.key.kind == "api"]
    assert breaker.failures == 0


async def test_an_upload_whose_beginning_takes_its_time_is_sent_all_the_same(
    connected: Broker, upstream: Upstream
) -> None:
    async def late_one() -> AsyncIterator[bytes]:
        await asyncio.sleep(1.5)
        yield bytes(100_000)

    answer = await connected.http.put(
        "/proxy/acme/ada/file",
        content=late_one(),
        headers={"Content-Length": "100000", "Prefer": "wait=1"},
    )
    assert answer.status_code == 200 and len(upstream.seen[0].body) == 100_000


async def test_failures_count_once_a_call(connected: Broker, upstream: Upstream) -> None:
    upstream.answers = [BUSY]
    await call(connected)
    [breaker] = [each for each in connected.services.breakers if each.key.kind == "api"]
    assert breaker.failures == 1
    upstream.answers = [status(404)]
    await call(connected)
    assert breaker.failures == 0


async def test_an_open_breaker_is_told_and_nothing_is_sent(connected: Broker, upstream: Upstream) -> None:
    await call(connected)
    [name] = [each.key.name for each in connected.services.breakers if each.key.kind == "api"]
    await connected.http.post(f"/breakers/{name}/open")
    answer = await call(connected)
    assert (answer.status_code, answer.json()["provider_code"]) == (503, "breaker_open")
    assert len(upstream.seen) == 1


async def test_streams_of_one_grant_do_not_shut_the_provider_off(
    connected: Broker, sandbox: Sandbox, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def streaming(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"line")
        await asyncio.sleep(60)
        return response

    await connect(connected, sandbox, "acme/bob")
    monkeypatch.setattr("app.apis.crowd._PATIENCE_SECONDS", 0.2)
    upstream.answers = [streaming]
    async with AsyncExitStack() as under_way:
        for number in range(OF_GRANT):
            stream = Call(GrantKey("acme", "ada"), "POST", f"stream/{number}")
            await under_way.enter_async_context(connected.services.gateway.open(stream))
        upstream.answers = [hello]
        answer = await call(connected)
        assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
        assert answer.headers["retry-after"] == "1"
        assert (await connected.http.get("/proxy/acme/bob/me")).status_code == 200
        [breaker] = [each for each in connected.services.breakers if each.key.kind == "api"]
        assert breaker.failures == 0
    assert (await call(connected)).status_code == 200


SCOPES: dict[str, Answering] = {
    "challenge": status(
        403, WWW_Authenticate='Bearer realm="x", error="insufficient_scope", scope="basic mail"'
    ),
    "google": body(
        b'{"error": {"code": 403, "details": [{"reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT"}]}}',
        403,
        Content_Type="application/json; charset=UTF-8",
    ),
    "google_old": body(
        b'{"error": {"errors": [{"domain": "global", "reason": "insufficientPermissions"}], "code": 403}}',
        403,
        Content_Type="application/json",
    ),
}


@pytest.mark.parametrize("way", SCOPES)
async def test_a_403_about_scopes_is_explained(connected: Broker, upstream: Upstream, way: str) -> None:
    upstream.answers = [SCOPES[way]]
    answer = await call(connected)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (409, "insufficient_scope")
    assert problem["action"]["url"].startswith("http") and problem["grant_id"]
    assert ("mail" in problem["detail"]) == (way == "challenge")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"error": {"code": "Authorization_RequestDenied"}}',
        b'{"error": "nope"}',
        b"[1]",
        b"{" * 100_000,
    ],
)
async def test_any_other_403_passes_as_it_is(connected: Broker, upstream: Upstream, content: bytes) -> None:
    upstream.answers = [body(content, 403, Content_Type="application/json")]
    answer = await call(connected)
    assert (answer.status_code, answer.content) == (403, content)
    assert answer.headers["x-broker-attempts"] == "1"


async def test_a_403_that_drips_is_answered_by_what_has_come_in_time(
    connected: Broker, upstream: Upstream
) -> None:
    async def dripping(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(status=403, headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b"{")
        await goes_on.wait()
        await response.write(b"}")
        return response

    goes_on, upstream.answers = asyncio.Event(), [dripping]
    call_ = Call(GrantKey("acme", "ada"), "POST", "me", within=1.0)
    async with connected.services.gateway.open(call_) as given:
        goes_on.set()
        assert given.status == 403
        assert b"".join([piece async for piece in given.chunks()]) == b"{}"


async def test_silence_is_bounded(broker: Broker, sandbox: Sandbox, upstream: Upstream) -> None:
    await connect(broker, sandbox)
    upstream.answers = [silence]
    answer = await asyncio.wait_for(call(broker, "POST", Prefer="wait=1"), timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (503, "provider_unavailable")


class _Not:
    """Every token but that one."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __contains__(self, token: object) -> bool:
        return token != self._token
