"""What an issuer publishes: where it is asked for, and what of it is believed (RFC 8414)."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ProviderError, Sent
from app.oauth.client import OAuthClient
from app.oauth.metadata import metadata_request, metadata_urls, published
from app.oauth.provider import Provider
from app.oauth.wire import HttpAnswer

ISSUER = "https://login.bank.example"
ENDPOINTS = {
    "authorization_endpoint": f"{ISSUER}/authorize",
    "token_endpoint": f"{ISSUER}/token",
    "revocation_endpoint": f"{ISSUER}/revoke",
    "introspection_endpoint": f"{ISSUER}/introspect",
    "userinfo_endpoint": f"{ISSUER}/userinfo",
}
METADATA: dict[str, Any] = {"issuer": ISSUER, **ENDPOINTS}


def bank(**entry: Any) -> OAuthClient:
    provider = Provider.model_validate({"name": "bank", "display_name": "Bank", "issuer": ISSUER, **entry})
    return OAuthClient("bank", provider, client_id="broker", client_secret="secret")


def answer(document: object, *, status: int = 200) -> HttpAnswer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return HttpAnswer(status, {"content-type": "application/json"}, body)


def read(asked: str = ISSUER, /, **changes: Any) -> dict[str, object]:
    """What is taken from the metadata, with changes; None leaves a member out."""
    members = {name: value for name, value in {**METADATA, **changes}.items() if value is not None}
    return dict(published(bank(), asked, answer(members)) or {})


def refused(asked: str = ISSUER, /, **changes: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        read(asked, **changes)
    return caught.value


@pytest.mark.parametrize(
    ("issuer", "first", "second"),
    [
        (ISSUER, "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"),
        (f"{ISSUER}/", "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"),
        (
            f"{ISSUER}/tenant/1",
            "/.well-known/oauth-authorization-server/tenant/1",
            "/tenant/1/.well-known/openid-configuration",
        ),
        (
            f"{ISSUER}:8443/a/",
            ":8443/.well-known/oauth-authorization-server/a",
            ":8443/a/.well-known/openid-configuration",
        ),
    ],
)
def test_rfc_8414_puts_its_path_between_host_and_path_and_openid_behind(
    issuer: str, first: str, second: str
) -> None:
    assert metadata_urls(issuer) == (ISSUER + first, ISSUER + second)


def test_it_is_asked_for_with_a_plain_get_that_carries_no_credentials() -> None:
    request = metadata_request(f"{ISSUER}/.well-known/oauth-authorization-server")
    assert (request.method, request.body) == ("GET", b"")
    assert dict(request.headers) == {"Accept": "application/json", "Accept-Encoding": "identity"}


def test_every_endpoint_becomes_the_field_of_a_catalogue_entry() -> None:
    assert read() == {
        "authorization_url": f"{ISSUER}/authorize",
        "token_url": f"{ISSUER}/token",
        "revocation_url": f"{ISSUER}/revoke",
        "introspection_url": f"{ISSUER}/introspect",
        "userinfo_url": f"{ISSUER}/userinfo",
        "requires_iss": False,
    }


@pytest.mark.parametrize("member", sorted(ENDPOINTS.keys() - {"token_endpoint"}))
def test_an_endpoint_that_is_not_published_is_none(member: str) -> None:
    assert len(read(**{member: None})) == len(read()) - 1


@pytest.mark.parametrize("status", [204, 301, 404, 410, 500, 503])
def test_what_is_not_answered_with_200_is_not_published(status: int) -> None:
    assert published(bank(), ISSUER, answer(METADATA, status=status)) is None


@pytest.mark.parametrize(
    "issuer", [f"{ISSUER}/", ISSUER.upper(), "https://evil.test", "", None, 7, [ISSUER], {"a": ISSUER}]
)
def test_the_metadata_of_another_issuer_is_refused(issuer: object) -> None:
    error = refused(issuer=issuer)
    assert (error.provider_code, error.code, error.sent) == (
        "issuer_mismatch",
        "provider_error",
        Sent.NOT_SENT,
    )
    assert error.detail.startswith("Bank does not say")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b"\xff\xfe", b'{"issuer":', b"[" * 9999])
def test_what_is_no_json_object_is_no_metadata(body: bytes) -> None:
    """As where a page answers for every address: the metadata may be at the other one."""
    assert published(bank(), ISSUER, answer(body)) is None


UNUSABLE: list[object] = [
    "http://login.bank.example/token",
    "ftp://login.bank.example/token",
    "//login.bank.example/token",
    "/token",
    "token",
    "",
    " ",
    "https://",
    "https://user:pw@login.bank.example/token",
    "https://login.bank.example/token#fragment",
    "https://login.bank.example/{tenant}/token",
    "https://login.bank.example/to ken",
    "https://login.bank.example/token\r\nX: y",
    "https://login.bank.example:port/token",
    "https://bänk.example/token",
    "javascript:alert(1)",
    "file:///etc/passwd",
    7,
    True,
    ["https://login.bank.example/token"],
    {"url": "https://login.bank.example/token"},
]
HERE = [
    *("http://127.0.0.1/token", "https://127.0.0.1/token", "https://localhost/token", "https://[::1]/token"),
    *("https://LOCALHOST/token", "http://localhost:8080/token"),
]


@pytest.mark.parametrize("member", sorted(ENDPOINTS))
def test_endpoints_that_are_no_usable_urls_are_refused(member: str) -> None:
    for url in UNUSABLE:
        assert refused(**{member: url}).provider_code == "endpoints_unusable", url


@pytest.mark.parametrize("member", sorted(ENDPOINTS))
def test_endpoints_on_this_machine_are_refused_from_an_issuer_elsewhere(member: str) -> None:
    for url in HERE:
        assert refused(**{member: url}).provider_code == "endpoints_unusable", url


NUMERIC = [
    *("127.1", "127.0.0.2", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "0.0.0.0", "169.254.169.254")
]


def test_endpoints_at_a_numeric_address_are_refused_from_an_issuer_with_a_name() -> None:
    """As in a variable of a catalogue entry: most of these are this machine by another spelling."""
    taken = []
    for host in NUMERIC:
        document = {**METADATA, "token_endpoint": f"https://{host}/token"}
        with suppress(ProviderError):
            published(bank(), ISSUER, answer(document))
            taken.append(host)
    assert taken == []


def test_an_issuer_on_this_machine_has_its_endpoints_here() -> None:
    here = "http://127.0.0.1:9000"
    found = read(here, issuer=here, token_endpoint=f"{here}/token")
    assert found["token_url"] == f"{here}/token"


def test_without_a_token_endpoint_nothing_can_be_done() -> None:
    assert refused(token_endpoint=None).provider_code == "endpoints_unusable"


@pytest.mark.parametrize(("said", "required"), [(True, True), (False, False), (None, False), ("true", False)])
def test_iss_is_required_only_where_the_issuer_says_that_it_sends_it(said: object, required: bool) -> None:
    assert read(authorization_response_iss_parameter_supported=said)["requires_iss"] is required


@pytest.mark.parametrize(
    ("supported", "method"),
    [
        (["client_secret_basic", "client_secret_post"], "basic"),
        (["client_secret_post", "client_secret_basic"], "basic"),
        (["private_key_jwt", "client_secret_post"], "post"),
        (["none"], "none"),
        (["private_key_jwt", "tls_client_auth"], None),
        ([], None),
        (None, None),
        ("client_secret_post", None),
        ([["client_secret_post"], {}, 7], None),
    ],
)
def test_the_way_to_authenticate_is_one_that_both_know(supported: object, method: str | None) -> None:
    found = read(token_endpoint_auth_methods_supported=supported)
    assert found.get("client_authentication") == method


def test_what_the_entry_says_itself_wins_over_what_is_published() -> None:
    entry = {
        "revocation_url": "https://other.bank.example/revoke",
        "userinfo_url": None,
        "client_authentication": "post",
        "requires_iss": False,
        "scopes": {"default": ["basic"]},
    }
    fields = read(
        token_endpoint_auth_methods_supported=["client_secret_basic"],
        authorization_response_iss_parameter_supported=True,
    )
    provider = bank(**entry).provider.completed(fields)
    assert (provider.revocation_url, provider.userinfo_url) == ("https://other.bank.example/revoke", None)
    assert (provider.client_authentication, provider.requires_iss) == ("post", False)
    assert (provider.token_url, provider.authorization_url) == (f"{ISSUER}/token", f"{ISSUER}/authorize")
    assert (provider.name, provider.issuer, provider.scopes.default) == ("bank", ISSUER, ("basic",))
    assert not provider.is_discovered


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*METADATA, "token_endpoint_auth_methods_supported"]), _JSON))
def test_whatever_is_published_is_a_usable_entry_or_refused_by_name(changes: dict[str, Any]) -> None:
    document = {**METADATA, **changes}
    try:
        fields = published(bank(), ISSUER, answer(document))
    except ProviderError as error:
        assert error.provider_code in {"issuer_mismatch", "endpoints_unusable"}
    else:
        assert bank().provider.completed(fields or {}).token_url
