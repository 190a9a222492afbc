"""Where a call may lead: below the API's base, and nowhere else."""

from __future__ import annotations

import unicodedata
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.errors import ValidationFailed
from app.gateway.target import mistake_in, url_below
from app.outbound.http import exactly
from tests.gateway.payloads import ESCAPES, LEGITIMATE

BASE = "https://api.example.com/v1"


@pytest.mark.parametrize("payload", [payload for payload in ESCAPES if payload.isascii()])
def test_what_could_lead_away_is_refused_by_name(payload: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        url_below(BASE, payload)
    assert set(refused.value.fields) == {"path"} and refused.value.detail.endswith(".")


@pytest.mark.parametrize("path", LEGITIMATE)
def test_what_stays_is_sent_as_it_came(path: str) -> None:
    url = exactly(url_below(BASE, path))
    assert url.raw_path_qs == f"/v1/{path}" and url.host == "api.example.com"


def test_an_empty_path_is_the_base_itself() -> None:
    assert url_below(BASE, "") == BASE and url_below(f"{BASE}/", "") == BASE
    assert url_below("https://api.example.com", "") == "https://api.example.com/"
    assert url_below("https://api.example.com", "?a=1") == "https://api.example.com/?a=1"


@pytest.mark.parametrize("query", ["a=#b", "a= b", "a=ü", "a=\r\nX: y", "a=\0"])
def test_a_query_that_is_none_is_refused(query: str) -> None:
    with pytest.raises(ValidationFailed):
        url_below(BASE, f"path?{query}")


_PIECES = st.sampled_from(
    [
        ".",
        "..",
        "/",
        "\\",
        "%2e",
        "%2E",
        "%2f",
        "%5c",
        "%252e",
        "%252f",
        "%25",
        ";",
        "a",
        "b;c",
        "%20",
        "%09",
        "%00",
        "@",
        ":",
        "//",
        "%c0%ae",
        "%ef%bc%8e",
        "%ef%bc%8f",
        "?",
        "#",
        "...",
        "%3b",
        "%3f",
        "evil.example",
        "http:",
    ]
)


@given(st.one_of(st.lists(_PIECES, max_size=8).map("".join), st.text(max_size=40)))
@example("a/%2e%2e%2f%2e%2e/b")
def test_no_reading_of_what_is_let_through_leaves_the_base(target: str) -> None:
    try:
        url = url_below(BASE, target)
    except ValidationFailed:
        return
    sent = exactly(url)
    assert (sent.scheme, sent.host, sent.raw_user) == ("https", "api.example.com", None)
    path = sent.raw_path
    for _ in range(6):
        assert _walked(path).startswith("/v1"), (target, path)
        path = unquote(path, errors="replace")


@given(
    st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="\\/."), min_size=1, max_size=30)
)
def test_any_name_that_is_encoded_once_is_let_through(name: str) -> None:
    segment = quote(name, safe="")
    if mistake_in(segment) is None:
        assert urlsplit(url_below(BASE, segment)).path == f"/v1/{segment}"
    else:
        assert "\\" in unquote(segment) or "%" in name or _is_folded(name)


def _walked(path: str) -> str:
    """What a server makes of it that takes backslashes for slashes, and drops parameters and blanks."""
    steps: list[str] = []
    for segment in path.replace("\\", "/").split("/"):
        name = segment.partition(";")[0].strip()
        if name == "..":
            steps = steps[:-1]
        elif name not in ("", "."):
            steps.append(name)
    return "/" + "/".join(steps)


def _is_folded(name: str) -> bool:
    folded = unicodedata.normalize("NFKC", name)
    return folded != name
