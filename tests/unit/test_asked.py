"""What the fast lane reads out of a request: the same as the route does, or nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, cast
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI, Query
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.asked import Asked, asked
from app.api.deps import Key, WaitQuery
from app.api.plain import shown_by
from app.api.problems import install
from app.consumers.consumer import digest_of
from app.grants.token import DEFAULT_MIN_TTL

app = FastAPI(redirect_slashes=False)
install(app)


@app.get("/tokens/{provider}/{user_id}")
@app.get("/api/v1/tokens/{provider}/{user_id}")
async def route(
    key: Key,
    min_ttl: Annotated[int, Query(ge=0, le=86400)] = 60,
    scope: Annotated[str, Query(max_length=4096)] = "",
    wait: WaitQuery = 30,
) -> tuple[str, str, str, int, str]:
    return key.provider, key.user_id, key.account, min_ttl, scope


names = st.one_of(
    st.text(max_size=12).map(lambda name: quote(name, safe="")),
    st.text("ab./%2F0d\x00~*:@é ", max_size=6),
    st.sampled_from(["", ".", "..", "%2e", "a%2Fb%40c", "%C3%A9", "%ff", "%00", "a" * 256]),
)
values = st.one_of(
    names, st.sampled_from(["0", "00", "60", "86400", "86401", "-1", "+5", "1_0", "6e1", " 7", "٣"])
)
parameters = st.lists(
    st.tuples(st.sampled_from(["min_ttl", "account", "scope", "wait", "more", ""]), values), max_size=4
)


def test_a_plain_request_is_read() -> None:
    found = asked(b"/api/v1/tokens/google/a%2Fb%40c", b"min_ttl=90&account=work&scope=a+b&wait=5")
    assert found == Asked("/api/v1/tokens/{provider}/{user_id}", "google", "a/b@c", "work", 90, "a b")
    default = asked(b"/tokens/google/ada", b"")
    assert default == Asked("/tokens/{provider}/{user_id}", "google", "ada", "default", 60, "")
    assert default is not None and timedelta(seconds=default.min_ttl) == DEFAULT_MIN_TTL


@given(prefix=st.sampled_from(["", "/api/v1", "/api"]), provider=names, user=names, query=parameters)
async def test_what_is_read_is_what_the_route_reads(
    prefix: str, provider: str, user: str, query: list[tuple[str, str]]
) -> None:
    path = f"{prefix}/tokens/{provider}/{user}".encode("ascii", "ignore")
    text = "&".join(f"{name}={value}" for name, value in query).encode("ascii", "ignore")
    found = asked(path, text)
    if found is None:
        return
    transport = httpx.ASGITransport(app=cast(Any, _raw(path, text)))
    async with httpx.AsyncClient(transport=transport, base_url="http://broker.test") as http:
        answer = await http.get("/")
    assert (answer.status_code, answer.json()) == (200, list(found[1:]))


@pytest.mark.parametrize(
    "query",
    [
        "min_ttl=86401",
        "min_ttl=-1",
        "min_ttl=",
        "wait=121",
        "min_ttl=1&min_ttl=2",
        "more=1",
        "account=",
        "account=%00",
    ],
)
def test_what_is_wrong_or_unknown_is_left_to_the_route(query: str) -> None:
    assert asked(b"/tokens/google/ada", query.encode()) is None


@pytest.mark.parametrize(
    "path",
    [
        "/tokens/google",
        "/tokens/google/ada/",
        "/tokens/google/ada/refresh",
        "/tokens/google/..",
        "/tokens/g/%ff",
    ],
)
def test_other_paths_are_left_to_the_route(path: str) -> None:
    assert asked(path.encode(), b"") is None


KEY = b"brk_0123456789abcdef_" + b"0123456789abcdef" * 4
BEARER = (b"authorization", b"Bearer " + KEY)


@pytest.mark.parametrize(
    "field",
    [
        BEARER,
        (b"x-api-key", KEY),
    ],
)
def test_a_key_is_found_in_either_header(field: tuple[bytes, bytes]) -> None:
    shown = shown_by([(b"host", b"broker"), field, (b"x-request-id", b"one")])
    assert shown is not None
    assert (shown.digest, shown.request_id, shown.length) == (digest_of(KEY), b"one", None)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [(b"authorization", KEY)],
        [(b"authorization", b"Basic " + KEY)],
        [BEARER, BEARER],
        [BEARER, (b"x-api-key", KEY)],
        [BEARER, (b"transfer-encoding", b"chunked")],
        [BEARER, (b"expect", b"100-continue")],
        [BEARER, (b"host", b"a"), (b"host", b"b")],
        [BEARER, (b"cookie", b"x" * 9000)],
        [BEARER, *((b"x-%d" % number, b"") for number in range(50))],
    ],
    ids=lambda fields: str(fields)[:40],
)
def test_a_head_that_is_not_plain_is_left_to_the_route(fields: list[tuple[bytes, bytes]]) -> None:
    assert shown_by(fields) is None


def test_an_id_that_is_none_is_not_taken_over() -> None:
    shown = shown_by([BEARER, (b"x-request-id", b"a b")])
    assert shown is not None and shown.request_id is None


def _raw(path: bytes, query: bytes) -> ASGIApp:
    """The application, asked for exactly that."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        asked_for = {"path": path.decode(), "raw_path": path, "query_string": query}
        await app({**scope, **asked_for}, receive, send)

    return call
