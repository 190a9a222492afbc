"""What the RFCs say about each request but the authorization request: no IO, `now` is an argument.

Every function answers the members of a JSON object or raises `Refused`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import math
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote_plus

from app.sandbox.call import Call, required
from app.sandbox.settings import Settings
from app.sandbox.state import State
from app.sandbox.tokens import AccessToken, Issued, Refused

DEFAULT_SCOPE = "basic"
SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")  # RFC 6749 section 3.3


def token(state: State, call: Call, now: float) -> dict[str, Any]:
    """The token endpoint (RFC 6749 section 3.2)."""
    form = call.form()
    client_id = authenticate(state.clients, call.authorization, form)
    grant = GRANTS.get(required(form, "grant_type"))
    if grant is None:
        raise Refused("unsupported_grant_type", "authorization_code, refresh_token or client_credentials")
    return token_answer(grant(state, form, client_id, now), state.settings)


def authenticate(clients: Mapping[str, str], authorization: str | None, form: Mapping[str, str]) -> str:
    """The client's id, by Basic or by the body, but not by both (RFC 6749 section 2.3)."""
    if authorization is None:
        client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
    elif "client_secret" in form:
        raise Refused("invalid_request", "two methods of client authentication in one request")
    else:
        client_id, secret = basic_credentials(authorization)
        if form.get("client_id", client_id) != client_id:
            raise Refused("invalid_request", "client_id differs from the authenticated client's")
    if not hmac.compare_digest(clients.get(client_id, "").encode(), secret.encode()) or not secret:
        raise unauthenticated(tried_basic=authorization is not None)
    return client_id


def basic_credentials(authorization: str) -> tuple[str, str]:
    """Id and secret, each form-decoded after the base64 (RFC 6749 section 2.3.1)."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise unauthenticated(tried_basic=True)
    try:
        decoded = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise unauthenticated(tried_basic=True) from error
    client_id, _, secret = decoded.partition(":")
    return unquote_plus(client_id), unquote_plus(secret)


def unauthenticated(*, tried_basic: bool) -> Refused:
    """RFC 6749 section 5.2: the challenge is owed to whoever used the Authorization header."""
    challenge = {"WWW-Authenticate": 'Basic realm="sandbox"'} if tried_basic else None
    return Refused("invalid_client", "client authentication failed", status=401, headers=challenge)


def requested_scope(form: Mapping[str, str]) -> str | None:
    """The `scope` parameter, None where it is omitted. Raises `Refused` where it is malformed."""
    scope = form.get("scope")
    if scope is not None and not SCOPE.fullmatch(scope):
        raise Refused("invalid_scope", "scope is malformed")
    return scope


def exchange_code(state: State, form: dict[str, str], client_id: str, now: float) -> Issued:
    """RFC 6749 section 4.1.3, RFC 7636 section 4.5."""
    return state.exchange(
        required(form, "code"),
        client_id=client_id,
        redirect_uri=required(form, "redirect_uri"),
        code_verifier=required(form, "code_verifier"),
        now=now,
    )


def refresh(state: State, form: dict[str, str], client_id: str, now: float) -> Issued:
    """RFC 6749 section 6."""
    scope = requested_scope(form)
    return state.refresh(required(form, "refresh_token"), client_id=client_id, scope=scope, now=now)


def client_credentials(state: State, form: dict[str, str], client_id: str, now: float) -> Issued:
    """RFC 6749 section 4.4.2."""
    scope = requested_scope(form) or DEFAULT_SCOPE
    return state.client_credentials(client_id=client_id, scope=scope, now=now)


GRANTS: dict[str, Callable[[State, dict[str, str], str, float], Issued]] = {
    "authorization_code": exchange_code,
    "refresh_token": refresh,
    "client_credentials": client_credentials,
}


def token_answer(issued: Issued, settings: Settings) -> dict[str, Any]:
    """RFC 6749 section 5.1, bent as the settings say."""
    lifetime = math.floor(issued.ttl)
    spoken = {"normal": lifetime, "string": str(lifetime), "zero": 0, "omit": None}[settings.expires_in]
    scope = {"normal": issued.scope, "omit": None}.get(settings.scope, settings.scope)
    members = {
        "access_token": issued.access_token,
        "token_type": "Bearer",
        "expires_in": spoken,
        "refresh_token": issued.refresh_token,
        "scope": scope,
    }
    return {name: value for name, value in members.items() if value is not None}


def revoke(state: State, call: Call, _now: float) -> dict[str, Any]:
    """RFC 7009 section 2.1; the hint is not needed, so it is ignored."""
    form = call.form()
    client_id = authenticate(state.clients, call.authorization, form)
    state.revoke(required(form, "token"), client_id=client_id)
    return {}


def introspect(state: State, call: Call, now: float) -> dict[str, Any]:
    """RFC 7662 section 2.2: whatever is not good now is `{"active": false}` and no more."""
    form = call.form()
    authenticate(state.clients, call.authorization, form)
    token = required(form, "token")
    if access := state.live_access_token(token, now):
        about = {"client_id": access.client_id, "scope": access.scope, "sub": subject(access)}
        return {"active": True, "token_type": "Bearer", "exp": int(access.expires), **about}
    if family := state.live_refresh_token(token, now):
        return {"active": True, "client_id": family.client_id, "scope": family.scope, "sub": family.user}
    return {"active": False}


def authorized(state: State, call: Call, now: float) -> AccessToken:
    """The access token of a request to a protected resource. Raises `Refused` (RFC 6750 section 3)."""
    token = call.bearer()
    access = state.live_access_token(token, now) if token else None
    if access is None:
        # RFC 6750 section 3.1: no error code for a request that brought no token
        challenge = 'Bearer realm="sandbox"' + (', error="invalid_token"' if token else "")
        raise Refused(
            "invalid_token",
            "no valid access token",
            status=401,
            headers={"WWW-Authenticate": challenge},
        )
    return access


def subject(access: AccessToken) -> str:
    """The user, or the client where it acts for itself (RFC 9068 section 2.2)."""
    return access.user or access.client_id


def userinfo(state: State, call: Call, now: float) -> dict[str, Any]:
    """OpenID Connect Core section 5.3."""
    access = authorized(state, call, now)
    return {"sub": subject(access), "preferred_username": subject(access)}


def ping(state: State, call: Call, now: float) -> dict[str, Any]:
    """The resource server's only resource: `{"user": str | null, "client_id": str, "scope": str}`."""
    access = authorized(state, call, now)
    return {"user": access.user, "client_id": access.client_id, "scope": access.scope}


def metadata(issuer: str) -> dict[str, Any]:
    """RFC 8414 section 2; OpenID Connect discovery answers the same, though no id tokens are issued."""
    methods = ["client_secret_basic", "client_secret_post"]
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "revocation_endpoint": f"{issuer}/revoke",
        "introspection_endpoint": f"{issuer}/introspect",
        "userinfo_endpoint": f"{issuer}/userinfo",
        "response_types_supported": ["code"],
        "grant_types_supported": list(GRANTS),
        "token_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_methods_supported": methods,
        "introspection_endpoint_auth_methods_supported": methods,
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
    }
