"""Why an authorization answer brings no code, and what the user is told of it. Pure."""

from __future__ import annotations

from app.connect.request import Callback
from app.oauth.client import OAuthClient

_OURS = (
    "{title} does not let this service connect accounts as it asked to. Its operators have to look into it."
)
_SIGN_IN = "{title} needs you to sign in there and agree. Please start again."
# RFC 6749 section 4.1.2.1 and OpenID Connect Core section 3.1.2.6; anything else is reported as `provider_error`.
_SENTENCES = {
    "access_denied": "You did not allow the access to {title}. Nothing was connected.",
    "invalid_request": _OURS,
    "unauthorized_client": _OURS,
    "unsupported_response_type": _OURS,
    "invalid_scope": "{title} does not give this service all of the access that was asked for. "
    "Its operators have to look into it.",
    "server_error": "{title} had a fault of its own, and nothing was connected. Please try again later.",
    "temporarily_unavailable": "{title} is too busy at the moment. Please try again in a few minutes.",
    "interaction_required": _SIGN_IN,
    "login_required": _SIGN_IN,
    "consent_required": _SIGN_IN,
    "account_selection_required": _SIGN_IN,
}


def refusal(client: OAuthClient, callback: Callback) -> tuple[str, str] | None:
    """The error code and a sentence for the user, where the answer brings no code to exchange; else None."""
    if not is_from(client, callback.issuer):
        return "provider_error", f"The answer did not come from {client.title}. Please start again."
    if callback.error is None and callback.code:
        return None
    sentence = _SENTENCES.get(callback.error or "")
    if sentence is None or callback.error is None:
        return "provider_error", f"{client.title} could not connect your account. Please try again later."
    return callback.error, sentence.format(title=client.title)


def is_from(client: OAuthClient, issuer: str | None) -> bool:
    """RFC 9207 section 2.4: another server may answer in the name of this one, and its code goes nowhere."""
    provider = client.provider
    if issuer is None:
        return not provider.requires_iss
    return provider.issuer is None or issuer == provider.resolve(provider.issuer, client.variables)
