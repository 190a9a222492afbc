"""What an issuer publishes of itself (RFC 8414, OpenID Connect Discovery), as fields of a catalogue entry. Pure.

metadata_urls(issuer)            where to ask, one after the other
published(client, issuer, ...)   what the answer adds to the entry
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

from app.errors import ProviderError, Sent
from app.oauth import urls
from app.oauth.client import OAuthClient
from app.oauth.wire import HttpAnswer, HttpRequest

_MEMBERS = {  # RFC 8414 section 2, and the field of a catalogue entry that says the same
    "authorization_endpoint": "authorization_url",
    "token_endpoint": "token_url",
    "revocation_endpoint": "revocation_url",
    "introspection_endpoint": "introspection_url",
    "userinfo_endpoint": "userinfo_url",
}
_METHODS = {"client_secret_basic": "basic", "client_secret_post": "post", "none": "none"}


def metadata_urls(issuer: str) -> tuple[str, str]:
    """Where an issuer publishes: RFC 8414 section 3.1, then OpenID Connect Discovery section 4."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    between = urlunsplit(parts._replace(path=f"/.well-known/oauth-authorization-server{path}"))
    behind = urlunsplit(parts._replace(path=f"{path}/.well-known/openid-configuration"))
    return between, behind


def metadata_request(url: str) -> HttpRequest:
    """RFC 8414 section 3.1."""
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    return HttpRequest(url, headers, b"", method="GET")


def published(client: OAuthClient, issuer: str, answer: HttpAnswer) -> Mapping[str, object] | None:
    """The fields that the issuer gives; None where it publishes nothing at that address.

    Raises ProviderError where it publishes what must not be believed: another issuer's metadata (RFC 8414 section 3.3),
    none that names a token endpoint, or endpoints on this machine.
    """
    metadata = answer.json_object() if answer.status == 200 else {}
    if not metadata:
        return None
    if metadata.get("issuer") != issuer:
        raise _unusable(client, "issuer_mismatch")
    fields: dict[str, object] = {
        field: metadata[member] for member, field in _MEMBERS.items() if metadata.get(member) is not None
    }
    if any(_leads_astray(url, issuer) for url in fields.values()) or "token_url" not in fields:
        raise _unusable(client, "endpoints_unusable")
    fields["requires_iss"] = metadata.get("authorization_response_iss_parameter_supported") is True
    if method := _method(client, metadata.get("token_endpoint_auth_methods_supported")):
        fields["client_authentication"] = method
    return fields


def _leads_astray(url: object, issuer: str) -> bool:
    """Whether it is no endpoint's URL, or leads from an issuer elsewhere to this machine, or to another bare address."""
    if not isinstance(url, str) or urls.placeholders(url) or urls.mistake_in(url):
        return True
    if urls.is_loopback(issuer):
        return False
    return urls.is_loopback(url) or urls.address_in(url) not in (None, urls.address_in(issuer))


def _method(client: OAuthClient, supported: object) -> str | None:
    """The first way to authenticate that we know as well; None where nothing is said (then it is basic)."""
    if not isinstance(supported, list):
        return None
    if client.client_secret is None and "none" in supported:
        return "none"
    return next((known for name, known in _METHODS.items() if name in supported), None)


def _unusable(client: OAuthClient, code: str) -> ProviderError:
    return ProviderError(
        f"{client.title} does not say in a usable way where its sign-in is. Your connection is kept.",
        provider=client.name,
        sent=Sent.NOT_SENT,  # of the request that this was asked for
        provider_code=code,
    )
