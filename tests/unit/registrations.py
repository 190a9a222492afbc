"""OAuth clients that unit tests speak for."""

from __future__ import annotations

from typing import Any

from app.oauth.client import OAuthClient
from app.oauth.load import load_catalogue
from app.oauth.provider import Provider

CATALOGUE = load_catalogue()
CLIENT_SECRET = "the-secret-of-our-registration"
_MINIMAL: dict[str, Any] = {
    "name": "acme",
    "display_name": "Acme",
    "authorization_url": "https://login.acme.example/authorize",
    "token_url": "https://login.acme.example/token",
}


def acme(
    *, client_id: str | None = "broker", client_secret: str | None = CLIENT_SECRET, **entry: Any
) -> OAuthClient:
    """A registration at a provider that does as RFC 6749 says, but for `entry`."""
    provider = Provider.model_validate({**_MINIMAL, **entry})
    return OAuthClient("acme", provider, client_id=client_id, client_secret=client_secret)


def known(name: str) -> OAuthClient:
    """A registration at a provider of our own catalogue."""
    return OAuthClient(name, CATALOGUE[name], client_id="broker", client_secret=CLIENT_SECRET)
