"""OAuth's requests: what we send, and what we never do."""

from __future__ import annotations

import base64
import json
import re
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ProviderRejectedClient, Sent
from app.oauth.client import OAuthClient
from app.oauth.messages import (
    authorization_url,
    code_request,
    new_verifier,
    refresh_request,
    revocation_request,
    s256_challenge,
)
from app.oauth.provider import Provider
from app.oauth.wire import HttpRequest
from tests.unit.registrations import CATALOGUE, CLIENT_SECRET, acme


def fields_of(request: HttpRequest) -> dict[str, str]:
    """The form's fields; each may be there once only (RFC 6749 section 3.2)."""
    pairs = parse_qsl(request.body.decode("ascii"), keep_blank_values=True, strict_parsing=True)
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


def basic_of(request: HttpRequest) -> tuple[str, str]:
    """What a server reads in the Authorization header (RFC 6749 section 2.3.1)."""
    scheme, _, encoded = request.headers["Authorization"].partition(" ")
    assert scheme == "Basic"
    client_id, _, secret = base64.b64decode(encoded).decode("ascii").partition(":")
    return unquote_plus(client_id), unquote_plus(secret)


def test_the_challenge_is_that_of_rfc_7636_appendix_b() -> None:
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert s256_challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_a_verifier_is_long_enough_unreserved_and_new_each_time() -> None:
    verifiers = {new_verifier() for _ in range(100)}
    assert len(verifiers) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", verifier) for verifier in verifiers)


def sent_to(client: OAuthClient, **changes: Any) -> str:
    values: dict[str, Any] = {
        "redirect_uri": "https://broker.example/callback?x=1",
        "state": "st&te",
        "code_verifier": "v" * 43,
        "scopes": ("read", "write"),
        "login_hint": None,
    }
    return authorization_url(client, **values | changes)


def parameters(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True, strict_parsing=True))


def test_the_authorization_url_asks_for_a_code_with_state_and_challenge() -> None:
    url = sent_to(acme())
    assert url.partition("?")[0] == "https://login.acme.example/authorize"
    assert parameters(url) == {
        "response_type": "code",
        "client_id": "broker",
        "redirect_uri": "https://broker.example/callback?x=1",
        "state": "st&te",
        "scope": "read write",
        "code_challenge": s256_challenge("v" * 43),
        "code_challenge_method": "S256",
    }


def test_the_authorization_url_tells_neither_the_verifier_nor_our_secret() -> None:
    url = sent_to(acme(), code_verifier="v" * 43)
    assert "v" * 43 not in url
    assert CLIENT_SECRET not in url


@pytest.mark.parametrize("query", ["tenant=a", "tenant=a&flag=x%26y", "tenant=a&flag="])
def test_the_query_of_the_endpoint_is_kept(query: str) -> None:  # RFC 6749 section 3.1
    url = sent_to(acme(authorization_url=f"https://login.acme.example/authorize?{query}"))
    kept = dict(parse_qsl(query, keep_blank_values=True))
    assert parameters(url).items() >= {**kept, "state": "st&te"}.items()


@pytest.mark.parametrize(("separator", "joined"), [(" ", "read write"), (",", "read,write")])
def test_scopes_are_joined_as_the_provider_wants_them(separator: str, joined: str) -> None:
    url = sent_to(acme(scopes={"separator": separator}))
    assert parameters(url)["scope"] == joined


def test_parameters_without_a_value_are_left_out() -> None:
    assert parameters(sent_to(acme(), scopes=())).keys().isdisjoint({"scope", "login_hint"})


def test_the_login_hint_and_the_entrys_own_parameters_are_added() -> None:
    client = acme(authorize_params={"access_type": "offline"})
    found = parameters(sent_to(client, login_hint="ada+1@example.com"))
    assert (found["login_hint"], found["access_type"]) == ("ada+1@example.com", "offline")


@pytest.mark.parametrize("name", ["code_challenge", "code_challenge_method", "state", "redirect_uri"])
def test_an_entry_cannot_downgrade_what_protects_the_code(name: str) -> None:
    with pytest.raises(ValueError, match="set by the broker itself"):
        acme(authorize_params={name: "plain"})


def test_without_pkce_there_is_neither_a_challenge_nor_a_plain_one() -> None:
    found = parameters(sent_to(acme(pkce=False)))
    assert not [name for name in found if name.startswith("code_challenge")]


@pytest.mark.parametrize(
    "entry", [entry for entry in CATALOGUE.values() if entry.pkce and not entry.variables]
)
def test_our_entries_with_pkce_always_send_s256(entry: Provider) -> None:
    url = sent_to(OAuthClient(entry.name, entry, client_id="broker"))
    assert parameters(url)["code_challenge_method"] == "S256"


def test_variables_fill_the_authorization_url() -> None:
    client = OAuthClient("n", CATALOGUE["netsuite"], client_id="broker", variables={"account_id": "123-sb1"})
    assert urlsplit(sent_to(client)).hostname == "123-sb1.app.netsuite.com"


@pytest.mark.parametrize(
    ("client", "code"),
    [
        pytest.param(acme(client_id=None), "no_client_registered", id="no registration"),
        pytest.param(acme(authorization_url=None), "no_authorization_endpoint", id="no endpoint"),
    ],
)
def test_nobody_is_sent_where_nobody_can_connect(client: OAuthClient, code: str) -> None:
    with pytest.raises(ProviderRejectedClient) as caught:
        sent_to(client)
    assert (caught.value.provider_code, caught.value.sent) == (code, Sent.NOT_SENT)


def test_a_refresh_is_the_form_of_rfc_6749_section_6() -> None:
    request = refresh_request(acme(), refresh_token="r&t=1 +%")
    assert request.url == "https://login.acme.example/token"
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert fields_of(request) == {"grant_type": "refresh_token", "refresh_token": "r&t=1 +%"}


def test_a_refresh_goes_to_the_endpoint_of_its_own_where_there_is_one() -> None:
    client = acme(refresh_url="https://login.acme.example/refresh")
    assert refresh_request(client, refresh_token="r").url == "https://login.acme.example/refresh"
    assert code_request(client, code="c", redirect_uri="u", code_verifier="v").url.endswith("/token")


def test_a_code_request_repeats_the_redirect_uri_and_proves_the_challenge() -> None:
    request = code_request(
        acme(), code="c+/=", redirect_uri="https://b.example/cb?x=1", code_verifier="v" * 43
    )
    assert fields_of(request) == {
        "grant_type": "authorization_code",
        "code": "c+/=",
        "redirect_uri": "https://b.example/cb?x=1",
        "code_verifier": "v" * 43,
    }


def test_without_pkce_no_verifier_is_sent() -> None:
    request = code_request(acme(pkce=False), code="c", redirect_uri="u", code_verifier="v")
    assert "code_verifier" not in fields_of(request)


def test_a_revocation_names_the_token_and_its_kind() -> None:
    client = acme(revocation_url="https://login.acme.example/revoke")
    request = revocation_request(client, token="r", hint="refresh_token")
    assert request is not None
    assert request.url == "https://login.acme.example/revoke"
    assert fields_of(request) == {"token": "r", "token_type_hint": "refresh_token"}


def test_there_is_no_revocation_without_an_endpoint() -> None:
    assert revocation_request(acme(), token="r", hint="refresh_token") is None


def test_the_answer_is_asked_for_as_json_and_not_compressed() -> None:
    headers = refresh_request(acme(), refresh_token="r").headers
    assert (headers["Accept"], headers["Accept-Encoding"]) == ("application/json", "identity")


def test_the_entrys_parameters_and_headers_go_along() -> None:
    client = acme(token_params={"audience": "a b"}, token_headers={"X-Version": "2"})
    request = refresh_request(client, refresh_token="r")
    assert (fields_of(request)["audience"], request.headers["X-Version"]) == ("a b", "2")


@pytest.mark.parametrize("method", ["basic", "post", "none"])
def test_each_request_has_one_client_authentication(method: str) -> None:  # RFC 6749 section 2.3
    client = acme(client_authentication=method, revocation_url="https://login.acme.example/revoke")
    for request in (
        refresh_request(client, refresh_token="r"),
        code_request(client, code="c", redirect_uri="u", code_verifier="v"),
        revocation_request(client, token="t", hint="access_token"),
    ):
        assert request is not None
        in_header = "Authorization" in request.headers
        in_body = "client_secret" in fields_of(request)
        assert (in_header, in_body) == (method == "basic", method == "post")
        assert ("client_id" in fields_of(request)) is (method != "basic")


@pytest.mark.parametrize(
    ("client_id", "secret", "pair"),
    [
        pytest.param("id", "secret", "id:secret", id="plain"),
        pytest.param("i:d", "s:t", "i%3Ad:s%3At", id="colons"),
        pytest.param("i%d", "s%20t", "i%25d:s%2520t", id="percent signs"),
        pytest.param("i d", "s +", "i+d:s+%2B", id="spaces and plus signs"),
        pytest.param("ïd", "gehëim", "%C3%AFd:geh%C3%ABim", id="not ASCII"),
    ],
)
def test_both_halves_are_form_encoded_before_basic(client_id: str, secret: str, pair: str) -> None:
    request = refresh_request(acme(client_id=client_id, client_secret=secret), refresh_token="r")
    encoded = base64.b64encode(pair.encode()).decode()
    assert request.headers["Authorization"] == f"Basic {encoded}"


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_a_server_reads_the_id_and_secret_that_we_mean(client_id: str, secret: str) -> None:
    client = acme(client_id=client_id, client_secret=secret)
    assert basic_of(refresh_request(client, refresh_token="r")) == (client_id, secret)


def test_a_secret_in_the_body_is_form_encoded_too() -> None:
    client = acme(client_id="i&d", client_secret="s=&é", client_authentication="post")
    fields = fields_of(refresh_request(client, refresh_token="r"))
    assert (fields["client_id"], fields["client_secret"]) == ("i&d", "s=&é")


def test_a_public_client_names_itself_and_sends_no_secret() -> None:
    client = acme(client_authentication="none", client_secret=None)
    request = refresh_request(client, refresh_token="r")
    assert fields_of(request)["client_id"] == "broker"
    assert "client_secret" not in fields_of(request)


def test_a_body_may_be_json() -> None:
    request = refresh_request(acme(body_format="json"), refresh_token="r€")
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.body) == {"grant_type": "refresh_token", "refresh_token": "r€"}
    assert "Authorization" in request.headers


def test_nothing_is_asked_without_a_registration() -> None:
    with pytest.raises(ProviderRejectedClient) as caught:
        refresh_request(acme(client_id=None), refresh_token="r")
    assert caught.value.sent is Sent.NOT_SENT


@pytest.mark.parametrize("method", ["basic", "post"])
def test_a_request_shows_no_secret(method: str) -> None:
    request = refresh_request(acme(client_authentication=method), refresh_token="a-refresh-token")
    shown = repr(request)
    basic = base64.b64encode(f"broker:{CLIENT_SECRET}".encode()).decode()
    assert [secret for secret in ("a-refresh-token", CLIENT_SECRET, basic) if secret in shown] == []
