"""A user on the way to a provider and back: where a browser may be sent, and who may take a request there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.connect.request import (
    AuthorizationRequest,
    Callback,
    Ticket,
    Wish,
    is_allowed_return,
    new_state,
    sha256,
)
from app.errors import InvalidRequest
from app.grants.grant import GrantKey

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ALLOWED = ("https://app.example.com/done", "http://localhost:3000")
WISH = Wish("google", "ada", "work", ("openid", "email"), "https://app.example.com/done", "ada@example.com")
ADA, EVE = sha256("ada's browser"), sha256("eve's browser")
REQUEST = AuthorizationRequest(
    id=UUID(int=1),
    wish=WISH,
    redirect_uri="https://broker.example/callback",
    sealed_code_verifier=b"a-sealed-verifier",
    browser_bound=True,
    browser_sha256=None,
    expires_at=NOW,
    used_at=None,
)


@pytest.mark.parametrize(
    "url",
    [
        "https://app.example.com/done",
        "https://app.example.com/done/",
        "https://app.example.com/done/deeper?x=1#part",
        "https://app.example.com/done?next=https://evil.test",
        "https://app.example.com/done#part",
        "https://app.example.com:443/done",
        "https://app.example.com:/done",
        "HTTPS://APP.example.COM/done",
        "https://app.example.com/done/%20x",
        "http://localhost:3000",
        "http://localhost:3000/",
        "http://localhost:3000/any/where",
        "http://localhost:3000?x=1",
    ],
)
def test_a_browser_may_be_sent_below_an_allowed_prefix(url: str) -> None:
    assert is_allowed_return(url, ALLOWED)


@pytest.mark.parametrize(
    "url",
    [
        # another place of the same host
        "https://app.example.com",
        "https://app.example.com/",
        "https://app.example.com/other",
        "https://app.example.com/donex",
        "https://app.example.com/done.evil.test",
        "https://app.example.com/DONE",
        "https://app.example.com/done/../other",
        "https://app.example.com/done/..",
        "https://app.example.com/done/%2e%2e/other",
        "https://app.example.com/done/%2E%2E/other",
        "https://app.example.com/done/.%2e/other",
        "https://app.example.com/done/%2e./other",
        "https://app.example.com//done",
        "https://app.example.com?/done",
        "https://app.example.com#/done",
        "https://app.example.com;/done",
        # another scheme or port
        "http://app.example.com/done",
        "http://app.example.com:443/done",
        "https://app.example.com:8443/done",
        "https://app.example.com:0/done",
        "https://app.example.com:99999/done",
        "https://app.example.com:x/done",
        "http://localhost",
        "https://localhost:3000",
        "javascript:alert(1)//app.example.com/done",
        "javascript://app.example.com/done%0aalert(1)",
        "data:text/html,https://app.example.com/done",
        "file://app.example.com/done",
        "ftp://app.example.com/done",
        # another host
        "https://evil.test/https://app.example.com/done",
        "https://app.example.com.evil.test/done",
        "https://app.example.com./done",
        "https://evil-app.example.com/done",
        "https://app.example.comevil/done",
        "https://app.example.com@evil.test/done",
        "https://app.example.com:443@evil.test/done",
        "https://ada@app.example.com/done",
        "https://ada:pass@app.example.com/done",
        "https://@app.example.com/done",
        "https://evil.test#@app.example.com/done",
        "https://evil.test?@app.example.com/done",
        "https://evil.test\\@app.example.com/done",
        "https://app.example.com\\@evil.test/done",
        "https://app.example.com\\.evil.test/done",
        "https://app.example.com/done/\\evil.test",
        "https://app.example.com/done/é",
        "https://app.example.com%2eevil.test/done",
        "https://app.example.com%00.evil.test/done",
        "https://аpp.example.com/done",  # a Cyrillic letter
        "https://app。example。com/done",
        # what browsers mend and parsers do not
        "https:/app.example.com/done",
        "https:app.example.com/done",
        "https:///app.example.com/done",
        "https:\\\\app.example.com\\done",
        "//app.example.com/done",
        "/done",
        "done",
        "app.example.com/done",
        "",
        " https://app.example.com/done",
        "https://app.example.com/done ",
        "https://app.example.com/done\n",
        "https://app.example.com/done\r\nSet-Cookie: x=1",
        "https://app.exam\tple.com/done",
        "\thttps://app.example.com/done",
        "https://app.example.com/done\x00",
        "https://app.example.com/done/\x7f",
        "https://[app.example.com/done",
        "https://app.example.com]/done",
    ],
)
def test_a_browser_is_never_sent_anywhere_else(url: str) -> None:
    assert not is_allowed_return(url, ALLOWED)


def test_nothing_is_allowed_where_nothing_is_configured() -> None:
    assert not is_allowed_return("https://app.example.com/done", ())


@pytest.mark.parametrize(
    "prefix", ["", "/done", "https://", "https://ada@app.example.com/done", "javascript:x"]
)
def test_a_prefix_that_is_no_url_allows_nothing(prefix: str) -> None:
    for url in ("https://app.example.com/done", prefix):
        assert not is_allowed_return(url, (prefix,))


def test_a_prefix_that_ends_in_a_slash_allows_what_is_below() -> None:
    assert is_allowed_return("https://app.example.com/done/x", ("https://app.example.com/done/",))
    assert not is_allowed_return("https://app.example.com/donex", ("https://app.example.com/done/",))


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40))
def test_what_follows_the_host_never_changes_the_host(rest: str) -> None:
    url = f"https://app.example.com{rest}"
    if is_allowed_return(url, ("https://app.example.com",)):
        assert urlsplit(url).hostname == "app.example.com"
        assert rest[0] in "/?#:"


_WISHES = st.builds(
    Wish,
    provider=st.text(),
    user_id=st.text(),
    account=st.text(),
    scopes=st.lists(st.text(), max_size=3).map(tuple),
    return_to=st.none() | st.text(),
    login_hint=st.none() | st.text(),
)


@given(st.builds(Ticket, _WISHES, st.datetimes(timezones=st.just(UTC)), st.none() | st.text()))
def test_a_ticket_is_read_back_as_it_was_written(ticket: Ticket) -> None:
    assert Ticket.from_json(ticket.to_json()) == ticket


def test_a_ticket_shows_no_state() -> None:
    assert "a-state" not in repr(Ticket(WISH, NOW, "a-state"))


def test_a_request_shows_neither_verifier_nor_browser() -> None:
    shown = repr(replace(REQUEST, browser_sha256=b"a-browser"))
    assert "a-sealed-verifier" not in shown
    assert "a-browser" not in shown


def test_a_wish_names_the_grant_that_it_makes() -> None:
    assert WISH.key == GrantKey("google", "ada", "work")


@pytest.mark.parametrize(
    ("opened_by", "used", "late", "allowed"),
    [
        (None, False, False, True),
        (ADA, False, False, True),
        (EVE, False, False, False),
        (None, True, False, False),
        (ADA, True, False, False),
        (None, False, True, False),
        (ADA, False, True, False),
    ],
    ids=["first", "again", "somebody else's", "used", "used by her", "late", "late but hers"],
)
def test_when_ada_may_open_a_request(opened_by: bytes | None, used: bool, late: bool, allowed: bool) -> None:
    request = replace(REQUEST, browser_sha256=opened_by, used_at=NOW if used else None)
    moment = NOW if late else NOW - timedelta(microseconds=1)
    assert request.may_be_opened_by(ADA, moment) is allowed


def test_states_cannot_be_guessed_and_differ() -> None:
    states = {new_state() for _ in range(200)}
    assert len(states) == 200
    assert min(map(len, states)) >= 43  # 256 bits


def test_a_callback_is_read_off_the_address() -> None:
    parameters = [
        ("state", "s"),
        ("code", "4/0Ab_c~ d"),
        ("iss", "https://idp.example"),
        ("scope", "é"),
        ("scope", "b"),
    ]
    found = Callback.of(parameters, browser="b")
    assert found == Callback("s", "4/0Ab_c~ d", None, "https://idp.example", "b")
    assert Callback.of([], browser=None) == Callback(None, None, None, None, None)


@pytest.mark.parametrize("name", ["state", "code", "error", "iss"])
def test_a_parameter_of_a_callback_stands_once(name: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"\({name}\)"):
        Callback.of([(name, "a"), (name, "a")], browser=None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("state", value) for value in ("a\r\nb", "\0", "é", "\x7f", "\ud800")),
        *(("code", value) for value in ("a\nb", "\0", "ü", "\x1b[31m")),
        *(("iss", value) for value in ("https://a b", "https://a\n", "é")),
    ],
)
def test_a_parameter_of_a_callback_holds_what_it_may(name: str, value: str) -> None:
    """RFC 6749 appendix A."""
    with pytest.raises(InvalidRequest, match=rf"\({name}\)"):
        Callback.of([(name, value)], browser=None)
