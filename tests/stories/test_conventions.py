"""What holds for every route: ids, headers, problems, paths, limits, and the OpenAPI document."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import httpx
import pytest

from app.main import create_app
from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, Broker, bring, settings_for

PREFIXES = ("", "/api/v1")
PROBLEM_MEMBERS = {"type", "title", "status", "detail", "code", "retryable", "retry_after", "request_id"}
BROUGHT = {"access_token": "sat_brought", "expires_in": 3600}
JSON = {"Content-Type": "application/json"}
PROVIDERS_PATHS = {"/api/v1/calendar/webhooks/{provider}"}  # whose notifications bring a secret of their own
CRON_PATHS = {
    "/api/v1/cron/retry-failed"
}  # a secret of its own, and nothing that could be well-formed but wrong
BROWSER_PATHS = {"/api/v1/connect/{ticket}", "/api/v1/oauth/{provider}/callback"}

Operation = tuple[str, str, dict[str, Any]]


@pytest.fixture
async def http(broker: Broker) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the admin key that takes a crash as the answer it is to callers."""
    transport = httpx.ASGITransport(app=broker.app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://broker.test", headers=headers
    ) as client:
        yield client


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """It is a whole problem (RFC 9457), and says so the same way in each of its members."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = cast(dict[str, Any], answer.json())
    assert problem.keys() >= PROBLEM_MEMBERS
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["type"].endswith(f"/problems/{code}")
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["title"] and problem["detail"] and "Traceback" not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    return problem


async def test_a_callers_own_request_id_is_kept(http: httpx.AsyncClient) -> None:
    for request_id in ("a", "Trace-1.2_3", "x" * 128):
        for path in ("/health-check/live", "/tokens/sandbox/nobody", "/nowhere"):
            answer = await http.get(path, headers={"X-Request-ID": request_id})
            assert answer.headers.get_list("x-request-id") == [request_id]


async def test_a_request_id_is_made_where_there_is_none_or_a_bad_one(http: httpx.AsyncClient) -> None:
    made = []
    for headers in [None, *({"X-Request-ID": bad} for bad in ("", "a b", "x" * 129, "a/b", "a\nb"))]:
        answer = await http.get("/tokens/sandbox/nobody", headers=headers)
        made.append(answer.headers["x-request-id"])
        assert answer.json()["request_id"] == made[-1]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"[0-9a-f]{32}", request_id) for request_id in made)


async def test_every_answer_carries_a_request_id(http: httpx.AsyncClient) -> None:
    for answer in (
        await http.get("/docs"),
        await http.get("/openapi.json"),
        await http.get("/metrics"),
        await http.get("/nowhere"),
        await http.get("/tokens/sandbox/ada", headers={"Authorization": ""}),
        await http.delete("/tokens/sandbox/ada"),
        await http.get("/tokens/sandbox/ada?min_ttl=-1"),
        await http.put("/grants/sandbox/ada", content=b"x" * 1_100_000, headers=JSON),
    ):
        assert answer.headers.get_list("x-request-id"), answer.request.url


async def test_a_crash_is_a_problem_that_tells_nothing_of_it(broker: Broker, http: httpx.AsyncClient) -> None:
    broken = cast(Any, "no refresher at all")
    broker.app.state.services = replace(broker.services, refresher=broken)
    answer = await http.get("/tokens/sandbox/ada", headers={"X-Request-ID": "find-me"})
    problem = assert_problem(answer, 500, "internal_error")
    assert problem["request_id"] == "find-me"
    assert "no refresher" not in answer.text and "attribute" not in answer.text


async def test_answers_that_hold_a_token_are_not_stored(
    broker: Broker, http: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    for prefix in PREFIXES:
        fetched = await http.get(f"{prefix}/tokens/sandbox/ada")
        refreshed = await http.post(f"{prefix}/tokens/sandbox/ada/refresh", json={"generation": 1})
        for answer in (fetched, refreshed):
            assert answer.status_code == 200 and "access_token" in answer.json()
            assert answer.headers["cache-control"] == "no-store"


async def test_both_mounts_are_the_same_api(broker: Broker, http: httpx.AsyncClient) -> None:
    await broker.put("sandbox/ada", BROUGHT)
    bodies = [(await http.get(f"{prefix}/tokens/sandbox/ada")).json() for prefix in PREFIXES]
    assert bodies[0].keys() == bodies[1].keys()
    assert bodies[0]["grant_id"] == bodies[1]["grant_id"]
    imported = await http.put("/api/v1/grants/sandbox/ada", json=BROUGHT)
    assert imported.json()["generation"] == 2


async def test_a_page_that_is_not_there_is_a_problem(http: httpx.AsyncClient) -> None:
    for path in ("/nowhere", "/api/v1", "/api/v1/tokens", "/tokens/sandbox", "/api/v2/tokens/sandbox/ada"):
        assert_problem(await http.get(path), 404, "not_found")


async def test_a_method_that_is_not_there_is_a_problem(http: httpx.AsyncClient) -> None:
    for prefix in PREFIXES:
        answer = await http.put(f"{prefix}/tokens/sandbox/ada", json={})
        assert_problem(answer, 405, "method_not_allowed")
        assert "GET" in answer.headers["allow"]


async def test_a_body_over_the_limit_is_a_problem(http: httpx.AsyncClient) -> None:
    async def in_chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 65536

    limit = 1024 * 1024
    for content in (b"x" * (limit + 1), in_chunks()):
        answer = await http.put("/grants/sandbox/ada", content=content, headers=JSON)
        assert_problem(answer, 413, "body_too_large")
    just_fits = json.dumps({**BROUGHT, "metadata": {"note": "x" * (limit - 1000)}}).encode()
    assert (await http.put("/grants/sandbox/ada", content=just_fits, headers=JSON)).status_code == 201


async def test_a_body_that_announces_too_much_is_refused_wherever_it_goes(http: httpx.AsyncClient) -> None:
    answer = await http.post("/tokens/sandbox/ada/validate", content=b"x" * 1_100_000, headers=JSON)
    assert_problem(answer, 413, "body_too_large")


async def test_a_body_may_be_32_deep_and_no_deeper(http: httpx.AsyncClient) -> None:
    for depth, status in ((32, 201), (33, 400)):
        nested: object = 1
        for _ in range(depth - 1):  # the body itself is one
            nested = {"a": nested}
        answer = await http.put("/grants/sandbox/ada", json={**BROUGHT, "metadata": nested})
        assert answer.status_code == status, depth


async def test_no_address_redirects_to_a_host_that_the_request_names(http: httpx.AsyncClient) -> None:
    answer = await http.get("/tokens/sandbox/ada/", headers={"Host": "evil.example"})
    assert_problem(answer, 404, "not_found")
    assert "location" not in answer.headers


async def test_problems_in_a_list_look_as_they_do_alone(http: httpx.AsyncClient) -> None:
    alone = (await http.get("/tokens/sandbox/nobody")).json()
    body = {"items": [{"provider": "sandbox", "user_id": "nobody"}]}
    [item] = (await http.post("/tokens/batch", json=body)).json()["items"]
    assert item["problem"].keys() == alone.keys()


async def test_a_head_over_the_limit_is_a_problem(http: httpx.AsyncClient) -> None:
    many = {f"x-{number}": "1" for number in range(120)}
    for answer in (
        await http.get("/tokens/sandbox/ada", headers={"x-large": "x" * 33_000}),
        await http.get("/tokens/sandbox/ada", headers=many),
        await http.get(f"/tokens/sandbox/ada?scope={'x' * 33_000}"),
        await http.get(f"/{'x' * 33_000}"),
    ):
        assert_problem(answer, 431, "headers_too_large")
    assert (await http.get("/health-check/live", headers={"x-large": "x" * 30_000})).status_code == 204


async def test_a_field_that_is_wrong_is_named(http: httpx.AsyncClient) -> None:
    for answer, field in (
        (await http.get("/tokens/sandbox/ada?min_ttl=soon"), "query.min_ttl"),
        (await http.get("/tokens/sandbox/%00"), "path.user_id"),
        (await http.put("/grants/sandbox/ada", json={**BROUGHT, "expires_in": -1}), "body.expires_in"),
        (await http.put("/grants/sandbox/ada", json={**BROUGHT, "expire_in": 1}), "body.expire_in"),
        (await http.put("/grants/sandbox/ada", json={"scope": "x"}), "body.access_token"),
        (
            await http.put("/grants/sandbox/ada", json={**BROUGHT, "expires_at": "2030-01-01T00:00:00Z"}),
            "body.expires_in",
        ),
        (await http.post("/tokens/sandbox/ada/refresh", json={"generation": 0}), "body.generation"),
        (await http.post("/tokens/sandbox/ada/refresh", json={"force": True}), "body.force"),
        (await http.post("/oauth/sandbox/authorize", json={"user_id": "a", "scope": "x"}), "body.scope"),
        (await http.post("/oauth/sandbox/authorize", json={}), "body.user_id"),
    ):
        problem = assert_problem(answer, 422, "validation_failed")
        assert [error["field"] for error in problem["errors"]] == [field]
        assert field in problem["detail"] and problem["errors"][0]["message"]


MALFORMED = {
    "no JSON": b"{access_token: 1}",
    "cut short": b'{"access_token": "a"',
    "two documents": b"{}{}",
    "invalid UTF-8": b'{"access_token": "\xff\xfe"}',
    "a lone byte": b"\xff",
}


async def test_a_body_that_is_not_json_is_malformed(http: httpx.AsyncClient) -> None:
    for name, content in MALFORMED.items():
        answer = await http.put("/grants/sandbox/ada", content=content, headers=JSON)
        assert answer.json()["code"] == "invalid_request", name
        assert_problem(answer, 400, "invalid_request")


async def test_a_body_that_is_json_but_no_object_is_refused(http: httpx.AsyncClient) -> None:
    for content in (b"[]", b'"text"', b"1", b"null", b"", b"{}"):
        answer = await http.put("/grants/sandbox/ada", content=content, headers=JSON)
        assert_problem(answer, 422, "validation_failed")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await http.put("/grants/sandbox/ada", content=b"access_token=a", headers=form)
    assert_problem(answer, 422, "validation_failed")


def nested(depth: int) -> bytes:
    """An import whose body is `depth` deep: the body itself, metadata, and lists within."""
    inner = b"[" * (depth - 2) + b"]" * (depth - 2)
    return b'{"access_token": "a", "metadata": {"deep": ' + inner + b"}}"


async def test_a_body_that_is_too_deep_is_malformed(http: httpx.AsyncClient) -> None:
    fits = await http.put("/grants/sandbox/ada", content=nested(32), headers=JSON)
    assert fits.status_code == 201
    for depth in (33, 500, 5000, 200_000):
        answer = await http.put("/grants/sandbox/ada", content=nested(depth), headers=JSON)
        assert answer.status_code == 400, depth
        assert_problem(answer, 400, "invalid_request")


async def test_a_body_of_too_many_members_is_malformed(http: httpx.AsyncClient) -> None:
    """A name and its value are two."""
    for many, status in ((4990, 201), (5010, 400), (60_000, 400)):
        metadata = {"deep": {f"n{number}": 0 for number in range(many)}}
        answer = await http.put("/grants/sandbox/ada", json={"access_token": "a", "metadata": metadata})
        assert answer.status_code == status, many
    zeros = b'{"access_token": "a", "metadata": {"deep": [' + b"0," * 500_000 + b"0]}}"
    names = b"{" + b",".join(b'"%d":0' % number for number in range(100_000)) + b"}"
    brackets = b"[" * 1_000_000
    for content in (zeros, names, brackets, brackets.replace(b"[", b'{"a":')[:1_000_000]):
        assert_problem(
            await http.put("/grants/sandbox/ada", content=content, headers=JSON), 400, "invalid_request"
        )


# What Python takes for JSON or text, and PostgreSQL does not.
UNSTORABLE: list[tuple[str, str, bytes]] = [
    ("PUT", "/grants/sandbox/ada", rb'{"access_token": "a", "scope": "\u0000"}'),
    ("PUT", "/grants/sandbox/ada", rb'{"access_token": "a\u0000"}'),
    ("PUT", "/grants/sandbox/ada", rb'{"access_token": "a", "account": "\u0000"}'),
    ("PUT", "/grants/sandbox/ada", rb'{"access_token": "a", "metadata": {"note": "\u0000"}}'),
    ("PUT", "/grants/sandbox/ada", rb'{"access_token": "a", "metadata": {"\u0000": 1}}'),
    ("PUT", "/grants/sandbox/ada", rb'{"access_token": "a", "metadata": {"deep": ["\u0000"]}}'),
    ("PUT", "/grants/sandbox/ada", rb'{"access_token": "a", "scope": "\ud800"}'),
    ("PUT", "/grants/sandbox/ada", rb'{"access_token": "a", "metadata": {"note": "\ud800"}}'),
    ("PUT", "/grants/sandbox/ada", rb'{"access_token": "a", "metadata": {"\udc00": 1}}'),
    ("PUT", "/grants/sandbox/ada", b'{"access_token": "a", "metadata": {"note": "\xed\xa0\x80"}}'),
    ("PUT", "/grants/sandbox/ada", b'{"access_token": "a", "metadata": {"n": NaN}}'),
    ("PUT", "/grants/sandbox/ada", b'{"access_token": "a", "metadata": {"n": -Infinity}}'),
    ("PUT", "/grants/sandbox/ada", b'{"access_token": "a", "metadata": {"n": 1e999}}'),
    (
        "PUT",
        "/grants/sandbox/ada",
        b'{"access_token": "a", "metadata": {"n": ' + b"9" * 200_000 + b"}}",
    ),
    ("PUT", "/grants/sandbox/ada", b'{"access_token": "a", "expires_in": ' + b"9" * 5000 + b"}"),
    ("PUT", "/grants/sandbox/ada", b'{"access_token": "a", "expires_in": 1e999}'),
    ("PUT", "/grants/sandbox/ada", b'{"access_token": "a", "expires_at": 1e999}'),
    ("PUT", "/grants/sandbox/ada", b'{"access_token": "a", "expires_at": 99999999999999999}'),
    ("POST", "/oauth/sandbox/authorize", rb'{"user_id": "ada", "login_hint": "\u0000"}'),
    ("POST", "/oauth/sandbox/authorize", rb'{"user_id": "ada", "login_hint": "\ud800"}'),
    ("POST", "/oauth/sandbox/authorize", rb'{"user_id": "ada\u0000"}'),
    ("POST", "/oauth/sandbox/authorize", rb'{"user_id": "ada", "scopes": ["\u0000"]}'),
    ("POST", "/oauth/sandbox/authorize", rb'{"user_id": "ada", "return_to": "\u0000"}'),
]


async def test_text_and_numbers_that_cannot_be_stored_are_refused(http: httpx.AsyncClient) -> None:
    answers = [
        await http.request(method, path, content=content, headers=JSON)
        for method, path, content in UNSTORABLE
    ]
    taken = [
        (answer.status_code, content[:80])
        for answer, (_, _, content) in zip(answers, UNSTORABLE, strict=True)
        if answer.status_code not in (400, 422)
    ]
    assert taken == []


async def test_what_only_reads_is_not_crashed_by_text_either(broker: Broker, http: httpx.AsyncClient) -> None:
    await broker.put("sandbox/ada", BROUGHT)
    for method, path in (
        ("GET", "/tokens/sandbox/ada?scope=%00"),
        ("GET", "/tokens/sandbox/ada?account=%00"),
        ("GET", "/tokens/sandbox/ada?account=%FF"),
        ("GET", "/tokens/%00/ada"),
        ("GET", "/tokens/%FF/ada"),
        ("GET", "/tokens/sandbox/%ED%A0%80"),
        ("GET", "/tokens/sandbox/ada?min_ttl=%00"),
        ("GET", f"/tokens/sandbox/ada?min_ttl={'9' * 5000}"),
        ("DELETE", "/grants/sandbox/%00"),
        ("GET", "/connect/%00"),
        ("GET", "/oauth/sandbox/callback?state=%00&code=%00&error=%00"),
        ("GET", "/oauth/%00/callback?state=a"),
        ("GET", "/%00"),
    ):
        status = (await http.request(method, path)).status_code
        assert 400 <= status < 500, path
    odd: list[tuple[bytes, bytes]] = [
        (b"Authorization", b"Bearer \xff\x00"),
        (b"X-API-Key", b"\xff"),
        (b"Cookie", b"broker_browser=\xff"),
    ]
    for name, value in odd:
        answer = await http.get("/tokens/sandbox/ada", headers=[(name, value)])
        assert answer.status_code in (200, 400, 401), name


async def test_a_user_id_is_one_path_segment_percent_encoded(broker: Broker, http: httpx.AsyncClient) -> None:
    for user_id in ("a/b@c d", "100%", "%2F", "%252F", "ä🙂", "a?b#c", "a;b=c", "@client", "...", "é" * 255):
        segment = quote(user_id, safe="")
        for prefix in PREFIXES:
            put = await http.put(f"{prefix}/grants/sandbox/{segment}", json=BROUGHT)
            assert put.status_code in (200, 201), user_id
            fetched = await http.get(f"{prefix}/tokens/sandbox/{segment}")
            assert (fetched.status_code, fetched.json()["user_id"]) == (200, user_id)
    assert (await http.get("/tokens/sandbox/a%2fb%40c%20d")).json()["user_id"] == "a/b@c d"
    assert (await http.get("/tokens/sandbox/a/b@c%20d")).status_code == 404


async def test_a_user_id_that_paths_or_logs_would_misread_is_refused(http: httpx.AsyncClient) -> None:
    for segment in (
        "%2E",
        "%2e%2e",
        "%00",
        "a%0Ab",
        "%7F",
        "%C2%85",
        "%FF",
        "%C3",
        "x" * 256,
        quote("é" * 256),
    ):
        for prefix in PREFIXES:
            fetched = await http.get(f"{prefix}/tokens/sandbox/{segment}")
            assert fetched.status_code == 422, segment
            assert_problem(fetched, 422, "validation_failed")
            assert (await http.put(f"{prefix}/grants/sandbox/{segment}", json=BROUGHT)).status_code == 422
            assert (await http.delete(f"{prefix}/grants/sandbox/{segment}")).status_code == 422


async def test_an_account_is_held_to_the_same(http: httpx.AsyncClient) -> None:
    for account in (".", "..", "", "a\n", "\x7f", "x" * 256):
        fetched = await http.get("/tokens/sandbox/ada", params={"account": account})
        assert_problem(fetched, 422, "validation_failed")
        body = {"account": account}
        refreshed = await http.post("/tokens/sandbox/ada/refresh", json=body)
        imported = await http.put("/grants/sandbox/ada", json={**BROUGHT, **body})
        begun = await http.post("/oauth/sandbox/authorize", json={"user_id": "ada", **body})
        assert [answer.status_code for answer in (refreshed, imported, begun)] == [422, 422, 422]


async def test_min_ttl_and_wait_have_bounds(broker: Broker, http: httpx.AsyncClient) -> None:
    await broker.put("sandbox/ada", BROUGHT)
    for query in ("min_ttl=0", "min_ttl=86400", "wait=0", "wait=120", "min_ttl=0&wait=0"):
        assert (await http.get(f"/tokens/sandbox/ada?{query}")).status_code == 200, query
    for query in ("min_ttl=-1", "min_ttl=86401", "min_ttl=1.5", "min_ttl=", "wait=-1", "wait=121", "wait=x"):
        answer = await http.get(f"/tokens/sandbox/ada?{query}")
        problem = assert_problem(answer, 422, "validation_failed")
        assert problem["errors"][0]["field"] == f"query.{query.partition('=')[0]}"
    assert (await http.post("/tokens/sandbox/ada/refresh?wait=121")).status_code == 422


async def test_times_are_utc_and_durations_whole_seconds(broker: Broker, http: httpx.AsyncClient) -> None:
    await broker.put("sandbox/ada", BROUGHT)
    token = (await http.get("/tokens/sandbox/ada")).json()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", token["expires_at"])
    assert isinstance(token["expires_in"], int) and 3590 <= token["expires_in"] <= 3600
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", token["grant_id"]
    )


async def test_there_is_documentation_to_read(http: httpx.AsyncClient) -> None:
    docs = await http.get("/docs")
    assert (docs.status_code, docs.headers["content-type"]) == (200, "text/html; charset=utf-8")


@pytest.fixture
def document(providers_dir: Path, tmp_path: Path) -> dict[str, Any]:
    """It says the same without a database."""
    settings = settings_for("postgresql://localhost/unused", providers_dir, data_dir=tmp_path / "var")
    return create_app(settings).openapi()


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def problem_answers(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The content of each declared answer that tells of an error, pages for browsers excepted."""
    for method, path, operation in operations(document):
        for status, answer in operation["responses"].items():
            if (
                int(status) >= 400
                and path != "/health-check"
                and "text/html" not in answer.get("content", "text/html")
            ):
                yield f"{method} {path} {status}", answer["content"]


async def test_every_declared_error_has_the_media_type_that_is_sent(document: dict[str, Any]) -> None:
    declared = dict(problem_answers(document))
    assert [name for name, content in declared.items() if set(content) != {"application/problem+json"}] == []


async def test_every_operation_of_the_api_declares_how_it_refuses(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        if path.startswith("/api/v1/") and path not in (BROWSER_PATHS | PROVIDERS_PATHS | CRON_PATHS):
            assert {"401", "403", "422", "503"} <= operation["responses"].keys(), (method, path)


async def test_the_document_says_which_answers_hold_what_is_sent(
    broker: Broker, http: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    await broker.put("sandbox/ada", BROUGHT)
    token = (await http.get("/tokens/sandbox/ada")).json()
    grant = (await http.put("/grants/sandbox/ada", json=BROUGHT)).json()
    begun = (await http.post("/oauth/sandbox/authorize", json={"user_id": "ada"})).json()
    deleted = (await http.delete("/grants/sandbox/ada")).json()
    schemas = document["components"]["schemas"]
    sent = {"TokenAnswer": token, "GrantAnswer": grant, "AuthorizeAnswer": begun, "Deleted": deleted}
    for name, body in sent.items():
        assert body.keys() == schemas[name]["properties"].keys()


async def test_a_number_is_no_time(broker: Broker) -> None:
    listed = await broker.http.get("/grants", params={"expires_before": "0.5"})
    brought = await broker.http.put(
        "/grants/sandbox/ada", json={"access_token": "at", "expires_at": 1800000000}
    )
    assert [answer.status_code for answer in (listed, brought)] == [422, 422]
    assert "RFC 3339" in listed.json()["errors"][0]["message"]


async def test_no_request_goes_to_a_thread_and_back(
    broker: Broker, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The framework does so for every dependency that is no coroutine, for longer than most of them take."""

    async def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a thread was asked for")

    for module in ("fastapi.dependencies.utils", "fastapi.routing"):
        monkeypatch.setattr(f"{module}.run_in_threadpool", refuse)
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    paths = ("/tokens/sandbox/ada?more=1", "/grants", "/providers", "/consumers", "/users/ada/health-check")
    for path in (*paths, "/breakers", "/audit", "/health-check", "/metrics"):
        assert (await broker.http.get(path)).status_code == 200, path
