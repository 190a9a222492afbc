"""What each provider's token endpoint means by its answers: the catalogue's lists, held against the answers' true shapes.

A row is one answer as that provider gives it. `DEAD`: the user has to connect again. `LATER`: a bad minute.
`OURS`: our registration is wrong, and no grant is to blame. `STRANGE`: nothing is concluded from it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.errors import (
    GrantRefused,
    ProviderError,
    ProviderRejectedClient,
    ProviderUnavailable,
    Sent,
    UpstreamError,
)
from app.oauth.answers import parse_token_answer
from app.oauth.client import OAuthClient
from app.oauth.load import load_catalogue
from app.oauth.wire import HttpAnswer

CATALOGUE = load_catalogue(allow_loopback=True)
DEAD, LATER, OURS, STRANGE = GrantRefused, ProviderUnavailable, ProviderRejectedClient, ProviderError
HTML = "<!doctype html><html><body>Service temporarily unavailable</body></html>"


@dataclass(frozen=True)
class Row:
    provider: str
    meaning: type[UpstreamError]
    status: int
    body: dict[str, Any] | str
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.provider}-{self.code or self.status}-{self.meaning.__name__}"


def judged(provider: str, status: int, body: object, headers: dict[str, str] | None = None) -> UpstreamError:
    """What is made of the answer by the catalogue's own entry."""
    content = body if isinstance(body, str) else json.dumps(body)
    client = OAuthClient(provider, CATALOGUE[provider], client_id="broker", client_secret="secret")
    with pytest.raises(UpstreamError) as raised:
        parse_token_answer(client, HttpAnswer(status, headers or {}, content.encode()))
    return raised.value


def plain(
    provider: str, meaning: type[UpstreamError], error: str, text: str = "", *, status: int = 400
) -> Row:
    """RFC 6749 section 5.2."""
    return Row(provider, meaning, status, {"error": error, "error_description": text}, error)


def google(meaning: type[UpstreamError], error: str, *, status: int = 400, **more: str) -> Row:
    body = {"error": error, "error_description": "Token has been expired or revoked.", **more}
    return Row("google", meaning, status, body, more.get("error_subtype", error))


def microsoft(
    meaning: type[UpstreamError], number: int, error: str = "invalid_grant", *, status: int = 400, **more: str
) -> Row:
    body = {
        "error": error,
        "error_description": f"AADSTS{number}: The provided value is not good enough. Trace ID: 0000",
        "error_codes": [number],
        "timestamp": "2026-11-05 10:00:00Z",
        "trace_id": "00000000-0000-0000-0000-000000000000",
        "correlation_id": "00000000-0000-0000-0000-000000000001",
        "error_uri": f"https://login.microsoftonline.com/error?code={number}",
        **more,
    }
    return Row("microsoft", meaning, status, body, str(number))


def slack(meaning: type[UpstreamError], error: str) -> Row:
    return Row("slack", meaning, 200, {"ok": False, "error": error}, error)


def github(meaning: type[UpstreamError], error: str) -> Row:
    about = {
        "error_description": "The passed refresh token is incorrect.",
        "error_uri": "https://docs.github.com",
    }
    return Row("github", meaning, 200, {"error": error, **about}, error)


def hubspot(meaning: type[UpstreamError], status: str) -> Row:
    body = {"status": status, "message": "missing or invalid refresh token", "correlationId": "0000"}
    return Row("hubspot", meaning, 400, body, status)


def zoho(meaning: type[UpstreamError], error: str) -> Row:
    return Row("zoho", meaning, 200, {"error": error}, error)


ROWS = [
    google(DEAD, "invalid_grant"),
    google(DEAD, "invalid_grant", error_subtype="invalid_rapt"),
    google(DEAD, "invalid_rapt"),
    google(LATER, "internal_failure"),
    google(OURS, "deleted_client", status=401),
    google(OURS, "org_internal", status=403),
    google(OURS, "unauthorized_client", status=401),
    microsoft(DEAD, 700082, suberror="token_expired"),
    microsoft(DEAD, 70008),
    microsoft(DEAD, 50173, suberror="bad_token"),
    microsoft(DEAD, 50057),
    microsoft(DEAD, 65001, suberror="consent_required"),
    microsoft(DEAD, 50076, "interaction_required", suberror="basic_action", claims='{"access_token":{}}'),
    microsoft(DEAD, 50079, "interaction_required", suberror="basic_action"),
    microsoft(DEAD, 53003, "interaction_required", suberror="message_only", claims='{"access_token":{}}'),
    microsoft(DEAD, 1234567, suberror="bad_token"),  # a number of tomorrow: `error` counts
    plain("microsoft", DEAD, "interaction_required"),
    microsoft(LATER, 90033, "temporarily_unavailable"),
    microsoft(LATER, 90033),
    microsoft(LATER, 50196),
    microsoft(OURS, 7000215, "invalid_client", status=401),
    microsoft(OURS, 7000222, "invalid_client", status=401),
    microsoft(OURS, 700016, "unauthorized_client"),
    microsoft(OURS, 700016),
    microsoft(OURS, 90002, "invalid_request"),
    microsoft(STRANGE, 900144, "invalid_request"),
    slack(DEAD, "invalid_refresh_token"),
    slack(DEAD, "token_revoked"),
    slack(DEAD, "account_inactive"),
    slack(LATER, "ratelimited"),
    slack(LATER, "internal_error"),
    slack(OURS, "bad_client_secret"),
    slack(OURS, "invalid_client_id"),
    slack(STRANGE, "invalid_arguments"),
    Row("slack", LATER, 429, {"ok": False, "error": "ratelimited"}, headers={"retry-after": "30"}),
    github(DEAD, "bad_refresh_token"),
    github(DEAD, "bad_verification_code"),
    github(OURS, "incorrect_client_credentials"),
    Row("github", LATER, 429, HTML, headers={"retry-after": "60"}),
    plain("salesforce", DEAD, "invalid_grant", "expired access/refresh token"),
    plain("salesforce", DEAD, "inactive_user", "user is inactive"),
    plain("salesforce", LATER, "rate_limit_exceeded", "login rate exceeded"),
    plain("salesforce", OURS, "invalid_client", "invalid client credentials"),
    plain("salesforce", OURS, "invalid_client_id", "client identifier invalid"),
    plain("salesforce", OURS, "invalid_client_credentials", "client secret invalid"),
    hubspot(DEAD, "BAD_REFRESH_TOKEN"),
    plain("hubspot", DEAD, "invalid_grant"),
    hubspot(OURS, "BAD_CLIENT_ID"),
    hubspot(OURS, "BAD_CLIENT_SECRET"),
    hubspot(STRANGE, "error"),
    Row("hubspot", LATER, 429, {"status": "error", "errorType": "RATE_LIMIT", "message": "slow down"}),
    plain("atlassian", DEAD, "invalid_grant", "Unknown or invalid refresh token.", status=403),
    plain("atlassian", STRANGE, "access_denied", "Unauthorized", status=403),
    Row("atlassian", STRANGE, 403, HTML),
    plain("atlassian", OURS, "invalid_client", status=401),
    zoho(DEAD, "invalid_code"),
    Row("zoho", LATER, 400, {"error": "Access Denied", "error_description": "...", "status": "failure"}),
    zoho(LATER, "Access Denied"),
    zoho(OURS, "invalid_client"),
    zoho(OURS, "invalid_client_secret"),
    zoho(STRANGE, "general_error"),
    plain("x", DEAD, "invalid_request", "Value passed for the token was invalid."),
    plain("x", DEAD, "invalid_grant"),
    plain("x", OURS, "unauthorized_client", "Missing valid authorization header", status=401),
    Row("x", LATER, 503, {"title": "Service Unavailable", "status": 503, "type": "about:blank"}),
    plain("xero", DEAD, "invalid_grant"),
    plain("quickbooks", DEAD, "invalid_grant", "Incorrect or invalid refresh token"),
    plain("box", DEAD, "invalid_grant", "Refresh token has expired"),
    Row("twitch", STRANGE, 400, {"error": "Bad Request", "status": 400, "message": "Invalid refresh token"}),
    Row("reddit", STRANGE, 400, {"message": "Bad Request", "error": 400}),
    Row("reddit", DEAD, 200, {"error": "invalid_grant"}),
    Row("facebook", STRANGE, 400, {"error": {"message": "expired", "code": 190, "error_subcode": 463}}),
    Row("pinterest", STRANGE, 400, {"code": 283, "message": "Invalid refresh token"}),
]

ANY = [
    (DEAD, 400, {"error": "invalid_grant"}),
    (DEAD, 401, {"error": "invalid_grant", "error_description": "nothing of this is read"}),
    (LATER, 408, HTML),
    (LATER, 429, {}),
    (LATER, 429, {"error": "invalid_grant"}),
    (LATER, 500, HTML),
    (LATER, 502, HTML),
    (LATER, 503, {"error": "invalid_grant"}),
    (LATER, 504, ""),
    (LATER, 400, {"error": "temporarily_unavailable"}),
    (OURS, 401, {"error": "invalid_client"}),
    (OURS, 400, {"error": "unauthorized_client"}),
    (OURS, 400, {"error": "unsupported_grant_type"}),
    (OURS, 400, {"error": "invalid_scope"}),
    (STRANGE, 200, HTML),
    (STRANGE, 400, HTML),
    (STRANGE, 403, ""),
    (STRANGE, 400, {"error": "a_code_of_tomorrow"}),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_an_answer_means_what_the_provider_means_by_it(row: Row) -> None:
    error = judged(row.provider, row.status, row.body, row.headers)
    assert type(error) is row.meaning
    assert error.retryable is (row.meaning in (LATER, STRANGE))


@pytest.mark.parametrize("provider", CATALOGUE)
def test_what_rfc_6749_says_holds_at_every_provider(provider: str) -> None:
    found = [(type(judged(provider, status, body)), status, body) for _, status, body in ANY]
    assert found == ANY


@pytest.mark.parametrize("provider", CATALOGUE)
def test_at_no_provider_a_refusal_counts_as_having_spent_the_refresh_token(provider: str) -> None:
    refused = [judged(provider, status, body) for _, status, body in ANY if status < 500 and status != 200]
    assert {error.sent for error in refused} == {Sent.ANSWERED}


@pytest.mark.parametrize("provider", [name for name, entry in CATALOGUE.items() if entry.error_on_200])
def test_an_error_means_the_same_with_status_200_where_such_answers_exist(provider: str) -> None:
    refusals = [(meaning, body) for meaning, status, body in ANY if status < 408 and isinstance(body, dict)]
    assert [(type(judged(provider, 200, body)), body) for _, body in refusals] == refusals


@pytest.mark.parametrize("provider", CATALOGUE)
def test_every_code_of_an_entry_is_in_a_row_here(provider: str) -> None:
    shown = {row.code: row.meaning for row in ROWS if row.provider == provider}
    lists = CATALOGUE[provider].errors.by_meaning
    listed = {code: kind for kind, codes in lists.items() for code in codes}
    meanings = {"dead": DEAD, "retry": LATER, "client": OURS}
    assert {code: meanings[kind] for code, kind in listed.items()}.items() <= shown.items()
