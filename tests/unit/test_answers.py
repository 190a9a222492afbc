"""A token endpoint's answers: what each kind of them means for the grant; no error tells a secret."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import (
    Category,
    GrantRefused,
    ProviderError,
    ProviderRejectedClient,
    ProviderUnavailable,
    Sent,
    UpstreamError,
)
from app.oauth.answers import TokenSet, TokensIncomplete, parse_revocation_answer, parse_token_answer
from app.oauth.client import OAuthClient
from app.oauth.wire import HttpAnswer
from tests.unit.registrations import acme, known

SECRET = "a-secret-of-the-answer"
TEN_YEARS = 10 * 366 * 86400


def answer(status: int, body: object, **headers: str) -> HttpAnswer:
    """An answer with `body` as it is if it is bytes, else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpAnswer(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


def refusal(client: OAuthClient, given: HttpAnswer) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        parse_token_answer(client, given)
    return caught.value


@dataclass(frozen=True)
class Case:
    """An answer, and what must be made of it. JSON objects get secrets on top, which no error may tell."""

    name: str
    status: int
    body: Any
    kind: type[UpstreamError]
    sent: Sent
    category: Category
    code: str | None
    retry_after: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    client: OAuthClient = field(default_factory=acme)

    @property
    def answer(self) -> HttpAnswer:
        secrets = {"refresh_token": SECRET, "error_description": f"the token {SECRET} is bad"}
        body = {**secrets, **self.body} if isinstance(self.body, dict) else self.body
        return answer(self.status, body, **{"set-cookie": SECRET, **self.headers})


def busy(
    name: str, status: int, code: str, body: Any = b"", retry_after: int | None = None, **more: Any
) -> Case:
    """It says that it did nothing."""
    limit = Category.RATE_LIMIT if status == 429 else Category.TRANSIENT
    return Case(name, status, body, ProviderUnavailable, Sent.ANSWERED, limit, code, retry_after, **more)


def broken(name: str, status: int, code: str, body: Any = b"") -> Case:
    """Who knows what it did?"""
    return Case(name, status, body, ProviderUnavailable, Sent.UNKNOWN, Category.TRANSIENT, code)


def dead(name: str, status: int, body: Any, code: str, **more: Any) -> Case:
    return Case(name, status, body, GrantRefused, Sent.ANSWERED, Category.TOKEN_EXPIRED, code, **more)


def ours(name: str, status: int, body: Any, code: str, **more: Any) -> Case:
    return Case(name, status, body, ProviderRejectedClient, Sent.ANSWERED, Category.PERMANENT, code, **more)


def later(name: str, status: int, body: Any, code: str, **more: Any) -> Case:
    return Case(name, status, body, ProviderUnavailable, Sent.ANSWERED, Category.TRANSIENT, code, **more)


def strange(name: str, status: int, body: Any, code: str, *, sent: Sent = Sent.UNKNOWN, **more: Any) -> Case:
    return Case(name, status, body, ProviderError, sent, Category.UNKNOWN, code, **more)


def half(name: str, body: Any, code: str, **more: Any) -> Case:
    """Its refresh token counts, and nothing else does."""
    return Case(name, 200, body, TokensIncomplete, Sent.ANSWERED, Category.UNKNOWN, code, **more)


def microsoft(number: int, error: str, **more: Any) -> dict[str, Any]:
    return {"error": error, "error_codes": [number], "suberror": "bad_token", "trace_id": "t", **more}


HTML = f"<html><body>Be right back {SECRET}</body></html>".encode()
DEEP = b'{"a":' * 9000
NO_TOKEN = "no_usable_access_token"
ENTRA, SLACK, GITHUB = known("microsoft"), known("slack"), known("github")
HUBSPOT = acme(errors={"dead": ["BAD_REFRESH_TOKEN"], "client": ["BAD_CLIENT_SECRET"]})
LENIENT = acme(error_on_200=True)

REFUSED = [
    # It is down, or asks for patience.
    busy("503 with HTML", 503, "http_503", HTML),
    busy("503 and dead", 503, "invalid_grant", {"error": "invalid_grant"}),
    busy("503 with Retry-After", 503, "http_503", retry_after=7, headers={"retry-after": "7"}),
    busy("429", 429, "http_429", {}),
    busy("429 with Retry-After", 429, "http_429", retry_after=30, headers={"retry-after": "30"}),
    busy("429 with error", 429, "slow_down", {"error": "slow_down"}),
    busy("429 with HTML", 429, "http_429", HTML, client=GITHUB),
    busy("408", 408, "http_408"),
    broken("500", 500, "http_500", HTML),
    broken("500 and dead", 500, "invalid_grant", {"error": "invalid_grant"}),
    broken("502", 502, "http_502", HTML),
    broken("504", 504, "http_504"),
    broken("599", 599, "http_599"),
    later("temporarily_unavailable", 400, {"error": "temporarily_unavailable"}, "temporarily_unavailable"),
    # The grant is dead.
    dead("invalid_grant", 400, {"error": "invalid_grant"}, "invalid_grant"),
    dead("invalid_grant with 401", 401, {"error": "invalid_grant"}, "invalid_grant"),
    dead("invalid_grant with 403", 403, {"error": "invalid_grant"}, "invalid_grant"),
    dead("invalid_grant with 200", 200, {"error": "invalid_grant"}, "invalid_grant", client=LENIENT),
    dead("Microsoft, too old", 400, microsoft(700082, "invalid_grant"), "700082", client=ENTRA),
    dead("Microsoft, consent", 400, microsoft(65001, "invalid_grant"), "65001", client=ENTRA),
    dead("Microsoft, factor", 400, microsoft(50076, "interaction_required"), "50076", client=ENTRA),
    dead("Microsoft, new number", 400, microsoft(999999, "invalid_grant"), "999999", client=ENTRA),
    dead("Slack", 200, {"ok": False, "error": "token_revoked"}, "token_revoked", client=SLACK),
    dead("GitHub", 200, {"error": "bad_refresh_token", "error_uri": "u"}, "bad_refresh_token", client=GITHUB),
    dead("HubSpot", 400, {"status": "BAD_REFRESH_TOKEN"}, "BAD_REFRESH_TOKEN", client=HUBSPOT),
    dead("Google, session", 400, {"error": "invalid_rapt"}, "invalid_rapt", client=known("google")),
    # Our registration is wrong: no grant is to blame.
    ours("invalid_client", 401, {"error": "invalid_client"}, "invalid_client"),
    ours("unauthorized_client", 400, {"error": "unauthorized_client"}, "unauthorized_client"),
    ours("unsupported_grant_type", 400, {"error": "unsupported_grant_type"}, "unsupported_grant_type"),
    ours("invalid_scope", 400, {"error": "invalid_scope"}, "invalid_scope"),
    ours("Microsoft, secret", 401, microsoft(7000215, "invalid_client"), "7000215", client=ENTRA),
    ours("Microsoft, tenant", 400, microsoft(90002, "invalid_request"), "90002", client=ENTRA),
    ours("Microsoft, application", 400, microsoft(700016, "invalid_grant"), "700016", client=ENTRA),
    ours("Slack", 200, {"ok": False, "error": "bad_client_secret"}, "bad_client_secret", client=SLACK),
    ours(
        "GitHub",
        200,
        {"error": "incorrect_client_credentials"},
        "incorrect_client_credentials",
        client=GITHUB,
    ),
    ours("HubSpot", 400, {"status": "BAD_CLIENT_SECRET"}, "BAD_CLIENT_SECRET", client=HUBSPOT),
    # A bad minute, by the entry's lists.
    later("Microsoft, passing", 400, microsoft(90033, "invalid_grant"), "90033", client=ENTRA),
    later("Microsoft, loop", 400, microsoft(50196, "invalid_grant"), "50196", client=ENTRA),
    later("Slack", 200, {"ok": False, "error": "internal_error"}, "internal_error", client=SLACK),
    later("Google", 400, {"error": "internal_failure"}, "internal_failure", client=known("google")),
    # An error that nobody knows kills nothing.
    strange("unknown error", 400, {"error": "out_of_cheese"}, "out_of_cheese", sent=Sent.ANSWERED),
    strange(
        "unknown with 200",
        200,
        {"error": "out_of_cheese"},
        "out_of_cheese",
        sent=Sent.ANSWERED,
        client=LENIENT,
    ),
    strange("error in capitals", 400, {"error": "INVALID_GRANT"}, "INVALID_GRANT", sent=Sent.ANSWERED),
    strange("error in a text", 400, {"error": "invalid_grant: no"}, "unrecognized", sent=Sent.ANSWERED),
    strange("error that tells a token", 400, {"error": f"bad {SECRET}"}, "unrecognized", sent=Sent.ANSWERED),
    strange("error that is a number", 400, {"error": 4711}, "4711", sent=Sent.ANSWERED),
    strange("error not ASCII", 400, {"error": "fèhler"}, "status_400", sent=Sent.ANSWERED),
    strange("error with line break", 400, {"error": "invalid_grant\n"}, "status_400", sent=Sent.ANSWERED),
    strange("error is an object", 400, {"error": {"code": 400}}, "status_400", sent=Sent.ANSWERED),
    strange("error is true", 400, {"error": True}, "status_400", sent=Sent.ANSWERED),
    strange("400 with HTML", 400, HTML, "status_400", sent=Sent.ANSWERED),
    strange("400 nested deeply", 400, DEEP, "status_400", sent=Sent.ANSWERED),
    strange("404", 404, HTML, "status_404", sent=Sent.ANSWERED),
    # A redirect was not followed.
    strange(
        "302", 302, b"", "status_302", sent=Sent.ANSWERED, headers={"location": f"https://x/?t={SECRET}"}
    ),
    strange("307", 307, b"", "status_307", sent=Sent.ANSWERED),
    # A good status without tokens: the refresh token may be spent.
    strange("200 with HTML", 200, HTML, NO_TOKEN),
    strange("200 with nothing", 200, b"", NO_TOKEN),
    strange("200 with an array", 200, [{"access_token": SECRET}], NO_TOKEN),
    strange("200 with a string", 200, SECRET, NO_TOKEN),
    strange("200 with null", 200, b"null", NO_TOKEN),
    strange("200 with half a JSON", 200, f'{{"access_token": "{SECRET}'.encode(), NO_TOKEN),
    strange("200 with a form", 200, f"access_token={SECRET}&token_type=bearer".encode(), NO_TOKEN),
    strange("200 not UTF-8", 200, b'{"access_token": "\xff"}', NO_TOKEN),
    strange("200 nested deeply", 200, DEEP, NO_TOKEN),
    half("200 without access_token", {"token_type": "Bearer"}, NO_TOKEN),
    strange("200 with error", 200, {"error": "invalid_grant"}, NO_TOKEN),
    half("Slack without a reason", {"ok": False}, NO_TOKEN, client=SLACK),
    half("access_token empty", {"access_token": ""}, NO_TOKEN),
    half("access_token null", {"access_token": None}, NO_TOKEN),
    half("access_token a number", {"access_token": 5}, NO_TOKEN),
    half("access_token with line break", {"access_token": f"{SECRET}\nX-Evil: 1"}, NO_TOKEN),
    half("access_token with line end", {"access_token": f"{SECRET}\n"}, NO_TOKEN),
    half("access_token with NUL", {"access_token": f"{SECRET}\0"}, NO_TOKEN),
    half("access_token not ASCII", {"access_token": f"{SECRET}ö"}, NO_TOKEN),
    half(
        "path leads nowhere",
        {"access_token": SECRET},
        NO_TOKEN,
        client=acme(access_token={"path": "a.b"}),
    ),
    half("token_type mac", {"access_token": SECRET, "token_type": "mac"}, "unknown_token_type"),
    half("token_type DPoP", {"access_token": SECRET, "token_type": "DPoP"}, "unknown_token_type"),
    half("token_type a number", {"access_token": SECRET, "token_type": 1}, "unknown_token_type"),
    strange("204", 204, b"", "no_usable_access_token"),
]
by_name = pytest.mark.parametrize(
    "case", REFUSED, ids=lambda case: f"{case.client.provider.name}: {case.name}"
)


@by_name
def test_what_an_answer_without_tokens_means(case: Case) -> None:
    error = refusal(case.client, case.answer)
    assert type(error) is case.kind
    assert (error.sent, error.category) == (case.sent, case.category)
    assert (error.provider_code, error.retry_after) == (case.code, case.retry_after)
    assert error.provider == case.client.name


@by_name
def test_no_error_tells_what_the_answer_held(case: Case) -> None:
    error = refusal(case.client, case.answer)
    shown = [str(error), error.detail, repr(error), repr(vars(error)), *traceback.format_exception(error)]
    assert [text for text in shown if SECRET in text] == []
    assert (error.__cause__, error.__context__) == (None, None)


@by_name
def test_every_refusal_has_a_sentence_for_the_user(case: Case) -> None:
    detail = refusal(case.client, case.answer).detail
    assert detail.startswith(case.client.title)
    assert detail.endswith(".")
    assert "{" not in detail


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        ("999999999", 86400),
        ("9" * 5000, None),
        ("-1", None),
        ("1.5", None),
        ("²", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_believed_up_to_a_day(value: str, seconds: int | None) -> None:
    assert refusal(acme(), answer(503, b"", retry_after=value)).retry_after == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("Wed, 21 Oct 2026 07:28:00 GMT", 60),
        ("Wednesday, 21-Oct-26 07:28:00 GMT", 60),
        ("Wed Oct 21 07:28:00 2026", 60),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0),
        ("Wed, 21 Oct 2026 06:00:00 GMT", 0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Fri, 23 Oct 2026 07:28:00 GMT", 86400),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86400),
        ("Wed, 21 Oct 2026 25:28:00 GMT", None),
        ("Wed, 32 Oct 2026 07:28:00 GMT", None),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None),
        ("Wed, 21 Oct 2026 07:28:00 +9999", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT" + " " * 5000, None),
        ("Wed, 21 Oct 2026", None),
        ("tomorrow", None),
    ],
)
def test_a_retry_after_that_is_a_date_counts_from_the_answers_own(value: str, seconds: int | None) -> None:
    given = answer(503, b"", retry_after=value, date="Wed, 21 Oct 2026 07:27:00 GMT")
    assert refusal(acme(), given).retry_after == seconds


@pytest.mark.parametrize("date", [None, "", "now", "1792567620", "Wed, 21 Oct 2026 07:27:00 +9999"])
def test_a_retry_after_that_is_a_date_is_unknown_where_the_answer_has_none(date: str | None) -> None:
    headers = {} if date is None else {"date": date}
    given = answer(429, b"", retry_after="Wed, 21 Oct 2026 07:28:00 GMT", **headers)
    assert refusal(acme(), given).retry_after is None


@pytest.mark.parametrize(
    ("code", "shown"),
    [("a.b-c_9", "a.b-c_9"), ("x" * 64, "x" * 64), ("x" * 65, "unrecognized"), ("x" * 5000, "unrecognized")],
)
def test_only_what_looks_like_a_code_is_shown(code: str, shown: str) -> None:
    for status in (400, 503):
        assert refusal(acme(), answer(status, {"error": code})).provider_code == shown


def test_an_answer_shows_no_body() -> None:
    assert SECRET not in repr(answer(200, {"access_token": SECRET}))


def tokens(body: Mapping[str, Any], **entry: Any) -> TokenSet:
    return parse_token_answer(acme(**entry), answer(200, {"access_token": "at", **body}))


def test_a_good_answer_is_understood_whole() -> None:
    given = {
        "access_token": "at",
        "token_type": "Bearer",
        "refresh_token": "rt",
        "expires_in": 300,
        "refresh_token_expires_in": 9000,
        "scope": "read write",
        "member_of_tomorrow": {"a": [1]},
    }
    understood = parse_token_answer(acme(), answer(200, given))
    assert understood == TokenSet("at", "Bearer", "rt", 300, 9000, "read write")


def test_a_token_set_shows_no_token() -> None:
    shown = repr(TokenSet("the-access-token", refresh_token="the-refresh-token"))
    assert "the-" not in shown


@pytest.mark.parametrize("body", [b'\xef\xbb\xbf{"access_token": "at"}', b' \n{"access_token": "at"}\r\n'])
def test_white_space_and_a_byte_order_mark_do_not_matter(body: bytes) -> None:
    assert parse_token_answer(acme(), answer(200, body)).access_token == "at"


@pytest.mark.parametrize("token_type", ["Bearer", "bearer", "BEARER", "bot", "user"])
def test_the_token_type_is_compared_without_case(token_type: str) -> None:
    assert tokens({"token_type": token_type}).token_type == "Bearer"


def test_a_missing_token_type_is_bearer() -> None:
    assert tokens({}).token_type == "Bearer"


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [
        (3599, 3599),
        (1, 1),
        ("3599", 3599),
        (" 3599 ", 3599),
        (3599.9, 3599),
        ("3599.0", 3599),
        (0, 1234),
        ("0", 1234),
        (-1, 1234),
        ("-3600", 1234),
        (None, 1234),
        ("", 1234),
        ("soon", 1234),
        ("nan", 1234),
        ("inf", 1234),
        (float("nan"), 1234),
        (float("inf"), 1234),
        (True, 1234),
        (False, 1234),
        ([3600], 1234),
        ({"seconds": 3600}, 1234),
        (10**12, TEN_YEARS),
        (1e300, TEN_YEARS),
        ("1e300", TEN_YEARS),
    ],
)
def test_expires_in_is_whole_seconds_or_the_entrys_default(expires_in: object, seconds: int) -> None:
    assert tokens({"expires_in": expires_in}, access_token={"lifetime_seconds": 1234}).expires_in == seconds


def test_a_missing_expires_in_is_the_entrys_default() -> None:
    assert tokens({}, access_token={"lifetime_seconds": 1234}).expires_in == 1234
    assert tokens({}, access_token={"lifetime_seconds": None}).expires_in is None


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"refresh_token_expires_in": 86400}, 86400),
        ({"refresh_expires_in": "86400"}, 86400),
        ({"refresh_expires_in": 0}, None),
        ({}, None),
    ],
)
def test_a_refresh_tokens_life_is_only_what_the_answer_says(
    body: dict[str, Any], seconds: int | None
) -> None:
    found = tokens(body, refresh_token={"absolute_lifetime_seconds": 604800})
    assert found.refresh_expires_in == seconds


@pytest.mark.parametrize(
    "missing",
    [{}, {"refresh_token": None}, {"refresh_token": ""}, {"refresh_token": 5}, {"refresh_token": "\ud800"}],
)
def test_no_refresh_token_means_that_the_old_one_stays(missing: dict[str, Any]) -> None:
    assert tokens(missing).refresh_token is None


@pytest.mark.parametrize("refresh_token", ["rt", "r t", "!~", "x" * 8000, "tökén", "a\r\nb", "\0"])
def test_a_new_refresh_token_is_taken_as_it_is(refresh_token: str) -> None:
    assert tokens({"refresh_token": refresh_token}).refresh_token == refresh_token


@pytest.mark.parametrize(
    ("scope", "separator", "found"),
    [
        ("read write", " ", "read write"),
        ("  read   write ", " ", "read write"),
        ("read,write", ",", "read write"),
        ("read, write", ",", "read write"),
        (["read", "write"], " ", "read write"),
        ([], " ", ""),
        ("", " ", ""),
        (None, " ", None),
        (7, " ", None),
        ({"read": True}, " ", None),
    ],
)
def test_granted_scopes_are_separated_by_spaces(scope: object, separator: str, found: str | None) -> None:
    assert tokens({"scope": scope}, scopes={"separator": separator}).scope == found


def test_a_missing_scope_means_as_requested() -> None:
    assert tokens({}).scope is None


@pytest.mark.parametrize("scope", ["read\0", "\ud800", "re\x1bad", ["read\0"], ["\ud800"]])
def test_no_scope_can_keep_a_good_answer_from_being_stored(scope: object) -> None:
    found = tokens({"scope": scope, "refresh_token": "rt"}).scope
    assert found is None or re.fullmatch(r"[\x20-\x7e]*", found)  # RFC 6749 section 3.3


def test_the_token_may_stand_deeper() -> None:
    body = {"ok": True, "authed_user": {"access_token": "of the user"}}
    found = tokens(body, access_token={"path": "authed_user.access_token"})
    assert found.access_token == "of the user"


def test_a_status_beside_a_token_that_stands_deeper_is_no_error() -> None:
    client = acme(access_token={"path": "data.token"}, error_on_200=True)
    given = answer(200, {"status": "success", "data": {"token": "at"}})
    assert parse_token_answer(client, given).access_token == "at"


@pytest.mark.parametrize("error", [None, "", False, 0, [], {}])
def test_an_empty_error_is_none(error: object) -> None:
    given = answer(200, {"access_token": "at", "error": error})
    assert parse_token_answer(LENIENT, given).access_token == "at"


def test_a_token_beside_an_error_counts_unless_errors_come_with_200() -> None:
    given = answer(200, {"access_token": "at", "error": "invalid_grant"})
    assert parse_token_answer(acme(), given).access_token == "at"
    assert isinstance(refusal(LENIENT, given), GrantRefused)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=6,
)
_MEMBERS = (
    *("access_token", "token_type", "expires_in", "refresh_token", "refresh_expires_in"),
    *("scope", "error", "error_codes", "suberror", "status"),
)
_BODIES = (
    st.fixed_dictionaries({}, optional=dict.fromkeys(_MEMBERS, _JSON)).map(
        lambda body: json.dumps(body).encode()
    )
    | _JSON.map(lambda body: json.dumps(body).encode())
    | st.binary()
)


_DATES = st.text() | st.from_regex(
    r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,6} \d\d:\d\d(:\d\d)? (GMT|[+-]\d{1,5})", fullmatch=True
)
_HEADERS = st.dictionaries(st.sampled_from(["retry-after", "date"]), _DATES)


@given(st.integers(200, 599), _BODIES, _HEADERS, st.booleans())
def test_whatever_comes_back_is_tokens_or_a_known_error(
    status: int, body: bytes, headers: dict[str, str], error_on_200: bool
) -> None:
    try:
        found = parse_token_answer(acme(error_on_200=error_on_200), HttpAnswer(status, headers, body))
    except UpstreamError as error:
        assert error.sent is not Sent.NOT_SENT
        assert error.retry_after is None or 0 <= error.retry_after <= 86400
    else:
        assert 200 <= status < 300
        assert found.access_token is not None and found.access_token.isascii()
        assert found.expires_in is None or 0 < found.expires_in <= TEN_YEARS


@pytest.mark.parametrize(
    ("status", "body", "error_on_200", "revoked"),
    [
        (200, b"", False, True),
        (200, b"<html>", False, True),
        (200, b'{"error": "unsupported_token_type"}', False, True),
        (200, b'{"error": "unsupported_token_type"}', True, False),
        (204, b"", False, False),
        (400, b'{"error": "invalid_request"}', False, False),
    ],
)
def test_only_200_says_that_a_token_is_revoked(
    status: int, body: bytes, error_on_200: bool, revoked: bool
) -> None:
    client = acme(error_on_200=error_on_200)
    assert parse_revocation_answer(client, HttpAnswer(status, {}, body)) is revoked


@pytest.mark.parametrize("status", [302, 401, 408, 429, 500, 503])
def test_a_provider_that_cannot_revoke_now_has_decided_nothing(status: int) -> None:
    with pytest.raises(ProviderUnavailable):
        parse_revocation_answer(acme(), HttpAnswer(status, {}, b""))


def test_a_registration_that_is_wrong_decides_nothing_about_a_revocation() -> None:
    with pytest.raises(ProviderUnavailable):
        parse_revocation_answer(acme(), HttpAnswer(400, {}, b'{"error": "invalid_client"}'))


def test_tokens_that_come_with_a_201_are_tokens() -> None:
    """RFC 6749 section 5.1 says 200; at a provider that rotates they are the only ones there are all the same."""
    body = b'{"access_token": "new", "token_type": "bearer", "refresh_token": "next"}'
    assert parse_token_answer(acme(), HttpAnswer(201, {}, body)).refresh_token == "next"
