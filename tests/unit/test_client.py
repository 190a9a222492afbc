"""Registrations: what cannot work with its catalogue entry is refused at start, by name."""

from __future__ import annotations

from typing import Any

import pytest

from app.errors import ProviderRejectedClient, UnknownProvider, ValidationFailed
from app.oauth.client import OAuthClient, OAuthClients, Registration, fitted
from app.oauth.load import load_catalogue
from app.oauth.provider import Provider

CATALOGUE = load_catalogue()


def registered(name: str, **changes: Any) -> OAuthClient:
    values = {"catalogue": name, "client_id": "id", "client_secret": "secret", **changes}
    return fitted(CATALOGUE, Registration(name, **values))


@pytest.mark.parametrize(
    ("name", "changes", "field", "mistake"),
    [
        ("gogle", {}, "catalogue", "must be one of"),
        ("acme", {"catalogue": "acme"}, "catalogue", "must be one of"),
        ("google", {"client_secret": None}, "client_secret", "is needed"),
        ("netsuite", {}, "settings", "account_id"),
        ("netsuite", {"settings": {"account_id": "evil.test/"}}, "settings", "account_id"),
        ("google", {"settings": {"tenant": "x"}}, "settings", "tenant"),
    ],
)
def test_a_registration_that_cannot_work_is_refused_by_field(
    name: str, changes: dict[str, object], field: str, mistake: str
) -> None:
    with pytest.raises(ValidationFailed) as refused:
        registered(name, **changes)
    assert refused.value.fields.keys() == {field}
    assert mistake in refused.value.fields[field]


def test_a_provider_that_wants_a_signed_assertion_is_refused_until_that_can_be_done() -> None:
    provider = Provider.model_validate(
        {"name": "bank", "token_url": "https://bank.test/token", "client_authentication": "private_key_jwt"}
    )
    with pytest.raises(ValidationFailed, match="private_key_jwt"):
        fitted({"bank": provider}, Registration("bank", "bank", "id"))


def test_a_provider_that_is_discovered_tells_later_whether_it_wants_a_secret() -> None:
    issuer = Provider.model_validate({"name": "bank", "issuer": "https://bank.test"})
    assert fitted({"bank": issuer}, Registration("bank", "bank", "id")).client_secret is None


def test_one_entry_may_have_several_registrations() -> None:
    clients = OAuthClients(CATALOGUE, {"google-acme": registered("google-acme", catalogue="google")})
    assert clients.get("google-acme").provider is clients.get("google").provider
    assert clients.get("google-acme").token_breaker != clients.get("google").token_breaker


def test_an_entry_without_a_registration_is_known_but_cannot_be_asked() -> None:
    with pytest.raises(ProviderRejectedClient, match="no registration at Google"):
        OAuthClients(CATALOGUE, {}).get("google").require_registration()


def test_an_unknown_name_is_an_unknown_provider() -> None:
    with pytest.raises(UnknownProvider):
        OAuthClients(CATALOGUE, {}).get("nobody")


def test_the_breaker_is_named_after_the_host_that_is_really_asked() -> None:
    client = registered("netsuite", settings={"account_id": "1234567-sb1"})
    assert client.token_breaker.host.startswith("1234567-sb1.")


def test_calendars_are_those_of_the_entry_or_else_of_the_name() -> None:
    plain = CATALOGUE["slack"]
    assert OAuthClient("google", plain).calendar_api == "google"
    assert OAuthClient("acme", CATALOGUE["microsoft"]).calendar_api == "microsoft"
    assert OAuthClient("acme", plain).calendar_api is None


def test_a_secret_is_not_in_the_representation() -> None:
    assert "secret-value" not in repr(registered("google", client_secret="secret-value"))


def test_a_registration_of_the_api_outranks_one_of_the_settings_until_it_is_removed() -> None:
    clients = OAuthClients(CATALOGUE, {"google": registered("google", client_id="of the settings")})
    clients.adopt({"google": registered("google", client_id="of the API")})
    assert clients.get("google").client_id == "of the API"
    clients.adopt({})
    assert clients.get("google").client_id == "of the settings"


def test_resources_that_cannot_be_kept_are_refused_by_field() -> None:
    with pytest.raises(ValidationFailed) as refused:
        registered("google", resources={"/calendar/../drive": 60})
    assert "/calendar/../drive" in refused.value.fields["resources"]
