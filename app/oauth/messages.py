"""What we say to an authorization server: requests built as pure values. `answers` understands what comes back."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote_plus, urlencode, urlsplit, urlunsplit

from app.errors import ProviderRejectedClient, Sent
from app.oauth.client import OAuthClient
from app.oauth.wire import HttpRequest


def new_verifier() -> str:
    """A fresh PKCE code verifier of 64 characters (RFC 7636 section 4.1)."""
    return secrets.token_urlsafe(48)


def s256_challenge(verifier: str) -> str:
    """RFC 7636 section 4.2."""
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def authorization_url(
    client: OAuthClient,
    *,
    redirect_uri: str,
    state: str,
    code_verifier: str,
    scopes: tuple[str, ...],
    login_hint: str | None,
) -> str:
    """Where the user's browser is sent (RFC 6749 section 4.1.1, RFC 7636 section 4.3).

    Raises ProviderRejectedClient where the provider has no authorization endpoint or we have no registration.
    """
    provider = client.provider
    client_id = client.require_registration()
    if provider.authorization_url is None:
        raise ProviderRejectedClient(
            f"{client.title} has no page on which a user could connect; import the grant instead.",
            provider=client.name,
            sent=Sent.NOT_SENT,
            provider_code="no_authorization_endpoint",
        )
    parameters = {
        **provider.authorize_params,
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "state": state,
        "scope": provider.scopes.separator.join(scopes) or None,
        "login_hint": login_hint,
    }
    if provider.pkce:
        parameters |= {"code_challenge": s256_challenge(code_verifier), "code_challenge_method": "S256"}
    parts = urlsplit(provider.resolve(provider.authorization_url, client.variables))
    present = {name: value for name, value in parameters.items() if value is not None}
    return urlunsplit(
        parts._replace(query=urlencode([*parse_qsl(parts.query, keep_blank_values=True), *present.items()]))
    )


def code_request(client: OAuthClient, *, code: str, redirect_uri: str, code_verifier: str) -> HttpRequest:
    """The code for tokens (RFC 6749 section 4.1.3); `redirect_uri` is the one of the authorization request."""
    fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
    if client.provider.pkce:
        fields["code_verifier"] = code_verifier
    return _request(client, client.provider.token_url or "", {**fields, **client.provider.token_params})


def refresh_request(client: OAuthClient, *, refresh_token: str) -> HttpRequest:
    """A refresh (RFC 6749 section 6). It asks for no scope, and so for no more than was granted."""
    fields = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    return _request(
        client, client.provider.token_endpoint_for_refresh, {**fields, **client.provider.token_params}
    )


def revocation_request(client: OAuthClient, *, token: str, hint: str) -> HttpRequest | None:
    """A revocation (RFC 7009 section 2.1), or None where the provider has no such endpoint."""
    url = client.provider.revocation_url
    return None if url is None else _request(client, url, {"token": token, "token_type_hint": hint})


def introspection_request(client: OAuthClient, *, access_token: str) -> HttpRequest | None:
    """Whether a token is active (RFC 7662 section 2.1); None where the provider cannot be asked so."""
    url = client.provider.introspection_url
    fields = {"token": access_token, "token_type_hint": "access_token"}
    return None if url is None else _request(client, url, fields)


def userinfo_request(client: OAuthClient, *, access_token: str) -> HttpRequest | None:
    """Who the token is of, which only a valid one tells (OpenID Connect Core section 5.3.1, RFC 6750 section 2.1)."""
    url = client.provider.userinfo_url
    if url is None:
        return None
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Authorization": f"Bearer {access_token}",
    }
    return HttpRequest(client.provider.resolve(url, client.variables), headers, b"", method="GET")


def _request(client: OAuthClient, url: str, fields: Mapping[str, str]) -> HttpRequest:
    """Exactly one method of client authentication (RFC 6749 section 2.3)."""
    client_id = client.require_registration()
    provider, secret = client.provider, client.client_secret or ""
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", **provider.token_headers}
    if provider.client_authentication == "basic":
        # RFC 6749 section 2.3.1: both halves are form-encoded before they are joined.
        pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
    elif provider.client_authentication == "post":
        fields = {**fields, "client_id": client_id, "client_secret": secret}
    else:
        fields = {**fields, "client_id": client_id}
    if provider.body_format == "json":
        headers["Content-Type"] = "application/json"
        body = json.dumps(dict(fields)).encode()
    else:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        body = urlencode(fields).encode("ascii")
    return HttpRequest(provider.resolve(url, client.variables), headers, body)
