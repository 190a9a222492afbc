"""Which headers pass the gateway, what may be repeated, and what a 403 says: all of it pure."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from app.apis.manners import Manners, is_failure, is_repeatable
from app.errors import Category, ProviderUnavailable, Sent
from app.gateway.headers import answered, received, sent, wait_in, without_wait
from app.gateway.refusals import lacks_scope
from app.resilience import Backoff

URL = "https://api.example/v1/things?page=2"
_NAMES = st.sampled_from(
    [
        "connection",
        "te",
        "upgrade",
        "cookie",
        "authorization",
        "x-api-key",
        "host",
        "via",
        "forwarded",
        "x-forwarded-for",
        "x-broker-retry",
        "accept",
        "x-a",
        "x-b",
    ]
)
_PAIRS = st.lists(st.tuples(_NAMES, st.sampled_from(["a", "x-a, close", "X-B", ""])), max_size=12)


@given(_PAIRS)
def test_nothing_of_a_caller_or_a_connection_is_ever_sent(pairs: list[tuple[str, str]]) -> None:
    named = {
        part.strip().lower() for name, value in pairs if name == "connection" for part in value.split(",")
    }
    passed = sent(pairs, {})
    assert not passed.keys() & (
        {"connection", "te", "upgrade", "cookie", "authorization", "x-api-key"} | named - {"accept"}
    )
    assert not any(name.startswith(("x-forwarded-", "x-broker-", "proxy-")) for name in passed)


def test_a_default_of_the_catalogue_yields_to_the_caller_whatever_its_case() -> None:
    assert sent([("accept", "a")], {"Accept": "b", "X-Version": "2"}) == {
        "accept": "a",
        "x-version": "2",
        "accept-encoding": "identity",
        "user-agent": "token-broker",
    }


def test_lines_of_one_name_are_one() -> None:
    assert sent([("if-match", '"a"'), ("if-match", '"b"')], {})["if-match"] == '"a", "b"'


def test_what_a_provider_names_hop_by_hop_ends_here() -> None:
    pairs = [("connection", "X-Hop"), ("x-hop", "1"), ("set-cookie", "a=1"), ("etag", '"7"'), ("vary", "a")]
    assert received(pairs, URL) == (("etag", '"7"'), ("vary", "a"))
    assert answered(received(pairs, URL)) == [("etag", '"7"')]


def test_a_preference_to_wait_is_ours_and_the_others_are_the_providers() -> None:
    for given_, wait, rest in (
        ("wait=7", 7, ""),
        ("respond-async, wait=10", 10, "respond-async"),
        ('outlook.timezone="a, wait=3", WAIT = "5"; x', 5, 'outlook.timezone="a, wait=3"'),
        ("wait=soon", None, "wait=soon"),
        ('a="b, wait=3', None, 'a="b, wait=3'),
        ('wait=4, "\\', 4, '"\\'),
        ("", None, ""),
    ):
        assert (wait_in(given_), without_wait(given_)) == (wait, rest), given_


def test_a_quotation_that_nobody_ends_is_read_once() -> None:
    """Were it read again from each of its characters, this would take hours."""
    prefer = 'a="' + '\\"' * 1_000_000
    assert wait_in(prefer) is None and without_wait(prefer) == prefer


def test_an_underscore_hides_nothing() -> None:
    for name in (
        "x_http_method_override",
        "x_api_key",
        "x_broker_retry",
        "x_forwarded-for",
        "content_length",
    ):
        assert name not in sent([(name, "1")], {})
    assert "x-hop" not in sent([("connection", "X_Hop"), ("x-hop", "1")], {})
    assert sent([("x_mine", "1")], {})["x_mine"] == "1"
    assert received([("set_cookie", "a=1"), ("x_mine", "1")], URL) == (("x_mine", "1"),)
    assert answered([("access_control_allow_origin", "*")]) == []


def test_a_relative_address_is_given_in_full() -> None:
    for told, full in (
        ("/grants/acme/bob", "https://api.example/grants/acme/bob"),
        ("7", "https://api.example/v1/7"),
        ("?page=3", "https://api.example/v1/things?page=3"),
        ("", URL),
        ("//cdn.example/x", "https://cdn.example/x"),
        ("https:/grants", "https://api.example/grants"),
        ("http:/grants", URL),
        ("https://", URL),
        ("//[", URL),
        ("HTTPS://Elsewhere.example/a/../b?#", "HTTPS://Elsewhere.example/a/../b?#"),
        ("mailto:a@b.example", "mailto:a@b.example"),
    ):
        for name in ("location", "content-location"):
            assert received([(name, told)], URL) == ((name, full),), told
        links = f'<{told}>; rel="next"; title="a <b>, \\"<c>", <https://x.example/>; rel=prev'
        assert received([("link", links)], URL) == (("link", links.replace(f"<{told}>", f"<{full}>")),)


def test_links_that_nobody_ends_are_read_once() -> None:
    """Were they read again from each of their characters, this would take hours."""
    for links in ("<" * 2_000_000, 'a="' + '\\"' * 1_000_000):
        assert received([("link", links)], URL) == (("link", links),)


def test_what_is_no_header_is_not_received() -> None:
    for value in ("a\x00b", "a\x01b", "a\x0bb", "a\x7fb", "a\rx: b", "a\nx: b"):
        assert received([("x-a", value), ("etag", '"7"')], URL) == (("etag", '"7"'),)
    for name in ("x a", "x(a", "", "caf\xe9"):
        assert received([(name, "1")], URL) == ()
    assert received([("x-a", "a\tb \xe9")], URL) == (("x-a", "a\tb \xe9"),)


def test_what_may_be_repeated() -> None:
    key = ("idempotency-key", "7")
    assert is_repeatable("PUT", {}) and is_repeatable("POST", sent([key], {}))
    assert not is_repeatable("POST", {"if-match": "1"}) and not is_repeatable("PATCH", {})
    for given_ in (
        [key, ("connection", "Idempotency-Key")],
        [("idempotency-key", " ")],
        [("idempotency-key", "")],
    ):
        assert not is_repeatable("POST", sent(given_, {})), given_
    twice, once = Manners(3, repeatable=True, waits_out=True), Manners(3, repeatable=False, waits_out=True)
    for status in range(200, 600):
        assert once.repeats_answer(status) is (status == 429)
        assert twice.repeats_answer(status) is (status == 429 or is_failure(status))
    assert {status for status in range(500, 506) if not is_failure(status)} == {501, 505}
    for what in Sent:
        lost = ProviderUnavailable("", provider="p", sent=what, category=Category.NETWORK)
        assert twice.repeats_error(lost) and once.repeats_error(lost) is (what is Sent.NOT_SENT)


def test_a_pause_keeps_to_the_provider_and_to_the_callers_time() -> None:
    manners, backoff = (
        Manners(3, repeatable=True, within=30),
        Backoff(attempts=9, base_seconds=1, cap_seconds=10),
    )
    assert manners.pause(backoff, 1, retry_after=20, left=25) == 20
    assert manners.pause(backoff, 1, retry_after=20, left=15) is None
    assert manners.pause(backoff, 3, retry_after=None, left=25) is None
    assert manners.pause(backoff, 1, retry_after=20, left=None) is None


def test_only_codes_of_one_meaning_say_that_a_scope_is_missing() -> None:
    assert lacks_scope('Bearer realm="x", error="insufficient_scope"', b"")
    assert lacks_scope(
        "", json.dumps({"error": {"errors": [{"reason": "insufficientPermissions"}]}}).encode()
    )
    for body in (
        {"error": {"code": "ErrorAccessDenied"}},
        {"error": {"message": "insufficient_scope"}},
        [1],
        None,
    ):
        assert not lacks_scope('Bearer error="invalid_token"', json.dumps(body).encode())
    assert not lacks_scope("", b"[" * 100_000)
