"""Registrations: what cannot work with its catalogue entry is refused at start, by name."""

from __future__ import annotations

import pytest

from app.errors import ConfigurationError, ProviderRejectedClient, UnknownProvider
from app.oauth.client import OAuthClient, register, registration
from app.oauth.load import load_catalogue
from app.oauth.provider import Provider

CATALOGUE = load_catalogue()


def registered(name: str, **changes: object) -> OAuthClient:
    values: dict[str, object] = {
        "client_id": "id",
        "client_secret": "secret",
        "catalogue_name": None,
        "scopes": (),
        "variables": {},
    }
    return registration(CATALOGUE, name, **{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "changes", "mistake"),
    [
        ("gogle", {}, "CATALOGUE must be one of"),
        ("acme", {"catalogue_name": "acme"}, "CATALOGUE must be one of"),
        ("google", {"client_secret": None}, "CLIENT_SECRET: is needed"),
        ("netsuite", {}, "SETTINGS: .*account_id"),
        ("netsuite", {"variables": {"account_id": "evil.test/"}}, "SETTINGS: .*account_id"),
        ("google", {"variables": {"tenant": "x"}}, "SETTINGS: .*tenant"),
    ],
)
def test_a_registration_that_cannot_work_is_refused_by_name(
    name: str, changes: dict[str, object], mistake: str
) -> None:
    with pytest.raises(ConfigurationError, match=mistake):
        registered(name, **changes)


def test_a_provider_that_wants_a_signed_assertion_is_refused_until_that_can_be_done() -> None:
    provider = Provider.model_validate(
        {"name": "bank", "token_url": "https://bank.test/token", "client_authentication": "private_key_jwt"}
    )
    with pytest.raises(ConfigurationError, match="private_key_jwt"):
        registration(
            {"bank": provider},
            "bank",
            client_id="id",
            client_secret=None,
            catalogue_name=None,
            scopes=(),
            variables={},
        )


def test_one_entry_may_have_several_registrations() -> None:
    clients = register(CATALOGUE, {"google-acme": registered("google-acme", catalogue_name="google")})
    assert clients.get("google-acme").provider is clients.get("google").provider
    assert clients.get("google-acme").token_breaker != clients.get("google").token_breaker


def test_an_entry_without_a_registration_is_known_but_cannot_be_asked() -> None:
    with pytest.raises(ProviderRejectedClient, match="no registration at Google"):
        register(CATALOGUE, {}).get("google").require_registration()


def test_an_unknown_name_is_an_unknown_provider() -> None:
    with pytest.raises(UnknownProvider):
        register(CATALOGUE, {}).get("nobody")


def test_the_breaker_is_named_after_the_host_that_is_really_asked() -> None:
    client = registered("netsuite", variables={"account_id": "1234567-sb1"})
    assert client.token_breaker.host.startswith("1234567-sb1.")


def test_a_secret_is_not_in_the_representation() -> None:
    assert "secret-value" not in repr(registered("google", client_secret="secret-value"))
