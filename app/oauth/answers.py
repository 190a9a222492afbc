"""What an authorization server says to us: its answers understood, or why they are no good, as pure values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from app.errors import (
    Category,
    GrantRefused,
    ProviderError,
    ProviderRejectedClient,
    ProviderUnavailable,
    Sent,
    UpstreamError,
)
from app.oauth.client import OAuthClient
from app.oauth.wire import HttpAnswer

_VSCHAR = re.compile(r"[\x20-\x7e]+")  # RFC 6749 appendix A.12 and A.17: what a token may consist of
_SURROGATE = re.compile("[\ud800-\udfff]")
_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MAX_LIFETIME_SECONDS = 10 * 366 * 86400
# Answers that say "not now" without having processed anything (RFC 6749 section 4.1.2.1, RFC 6585, RFC 9110).
_UNPROCESSED_STATUSES = {408, 429, 503}
NO_ACCESS_TOKEN, UNKNOWN_TOKEN_TYPE = "no_usable_access_token", "unknown_token_type"
_UNUSABLE = "{title} gave an answer that cannot be used. Your connection is kept; try again shortly."
_REFUSALS: Mapping[str | None, tuple[type[UpstreamError], str]] = {
    "dead": (GrantRefused, "{title} no longer accepts this connection. Please connect your account again."),
    "client": (
        ProviderRejectedClient,
        (
            "{title} does not accept this service's registration. Its operators have to mend it; your connection is "
            "kept."
        ),
    ),
    "retry": (
        ProviderUnavailable,
        "{title} cannot answer right now. Your connection is fine; try again shortly.",
    ),
    None: (
        ProviderError,
        "{title} refused with a reason that this service does not know. Your connection is kept.",
    ),
}


@dataclass(frozen=True)
class TokenSet:
    """A token endpoint's good answer (RFC 6749 section 5.1).

    `expires_in` is in seconds and None for tokens that do not expire; `refresh_token` is None where none came, which
    on a refresh means that the old one stays (section 6); `scope` None means as requested. `access_token` is None only
    in what `TokensIncomplete` saves of an answer.
    """

    access_token: str | None = field(repr=False)
    token_type: str = "Bearer"
    refresh_token: str | None = field(default=None, repr=False)
    expires_in: int | None = None
    refresh_expires_in: int | None = None
    scope: str | None = None


class TokensIncomplete(ProviderError):
    """A good answer without an access token of use. `rest` is its refresh token, which counts from now on: where
    refresh tokens rotate the one that was sent is spent."""

    def __init__(self, detail: str, *, provider: str, provider_code: str, rest: TokenSet) -> None:
        super().__init__(detail, provider=provider, sent=Sent.ANSWERED, provider_code=provider_code)
        self.rest = rest


def parse_token_answer(client: OAuthClient, answer: HttpAnswer) -> TokenSet:
    """The tokens of a token endpoint's answer.

    The order of judgement: 5xx and 429, then the parsed `error` against the provider's lists and RFC 6749 section 5.2,
    then the status, then the tokens themselves. Raises GrantRefused, ProviderRejectedClient, ProviderUnavailable,
    TokensIncomplete or ProviderError; each tells by `sent` whether the refresh token may have been spent.
    """
    fields = answer.json_object()
    codes = _error_codes(client, fields)
    if answer.status >= 500 or answer.status in _UNPROCESSED_STATUSES:
        _raise_unavailable(client, answer, codes)
    if codes and (answer.status >= 400 or client.provider.error_on_200):
        _raise_refusal(client, answer, codes)
    if (
        not 200 <= answer.status < 300
    ):  # RFC 6749 says 200, but tokens that came with a 201 are the only ones there are
        _raise_unusable(client, answer, f"status {answer.status}")
    return _token_set(client, answer, fields)


def parse_revocation_answer(client: OAuthClient, answer: HttpAnswer) -> bool:
    """Whether the token is revoked: 200 says so, for unknown tokens too (RFC 7009 section 2.2); False where the
    provider refuses. Raises ProviderUnavailable where it says "not now": the token lives on (section 2.2.1)."""
    refused = answer.status != 200 or client.provider.error_on_200
    codes = _error_codes(client, answer.json_object()) if refused else ()
    # What is wrong with our registration can be mended within the days that it is tried.
    mendable = answer.status == 401 or client.provider.meaning_of(*codes) in ("retry", "client")
    not_now = answer.status in _UNPROCESSED_STATUSES or mendable
    # A redirect, to a page for maintenance say, decides nothing.
    if not_now or answer.status // 100 not in (2, 4):
        _raise_unavailable(client, answer, codes)
    return answer.status == 200 and not codes


def parse_introspection_answer(answer: HttpAnswer) -> bool | None:
    """Whether the token is active (RFC 7662 section 2.2); None where the answer does not say."""
    active = answer.json_object().get("active")
    return active if answer.status == 200 and isinstance(active, bool) else None


def parse_userinfo_answer(answer: HttpAnswer) -> bool | None:
    """Whether the token is accepted (RFC 6750 section 3.1); None where the answer does not say."""
    if answer.status == 401:
        return False
    return True if answer.status == 200 else None


def _error_codes(client: OAuthClient, fields: Mapping[str, Any]) -> tuple[str, ...]:
    """The answer's error codes, the most particular first; none where it reports no error."""
    numbers = fields.get("error_codes")
    found = [*(numbers if isinstance(numbers, list) else ()), fields.get("suberror"), fields.get("error")]
    if not fields.get("error") and _at_path(fields, client.provider.access_token.path) is None:
        found.append(fields.get("status"))  # some put their code there: {"status": "BAD_REFRESH_TOKEN"}
    told = (code for code in found if code and isinstance(code, str | int) and not isinstance(code, bool))
    codes = (str(code)[:100] for code in told)
    return tuple(code for code in codes if _VSCHAR.fullmatch(code))


def _shown(client: OAuthClient, code: str) -> str:
    """The code as problems and logs may show it: one that does not look like one could be anything, a token too."""
    known = client.provider.meaning_of(code) is not None
    return code if known or _CODE.fullmatch(code) else "unrecognized"


def _raise_unavailable(client: OAuthClient, answer: HttpAnswer, codes: tuple[str, ...]) -> NoReturn:
    throttled = answer.status == 429
    reason = "is asking us to slow down" if throttled else "is having trouble"
    raise ProviderUnavailable(
        f"{client.title} {reason}. Your connection is fine; try again shortly.",
        provider=client.name,
        sent=Sent.ANSWERED if answer.status in _UNPROCESSED_STATUSES else Sent.UNKNOWN,
        category=Category.RATE_LIMIT if throttled else Category.TRANSIENT,
        provider_code=_shown(client, codes[0]) if codes else f"http_{answer.status}",
        retry_after=answer.retry_after(),
    )


def _raise_refusal(client: OAuthClient, answer: HttpAnswer, codes: tuple[str, ...]) -> NoReturn:
    """What the provider's lists make of the codes, or RFC 6749 section 5.2 where they say nothing."""
    kind, sentence = _REFUSALS[client.provider.meaning_of(*codes)]
    raise kind(
        sentence.format(title=client.title),
        provider=client.name,
        sent=Sent.ANSWERED,
        provider_code=_shown(client, codes[0]),
        retry_after=answer.retry_after(),
    )


def _raise_unusable(client: OAuthClient, answer: HttpAnswer, what: str) -> NoReturn:
    """An answer that is neither tokens nor an error. With a 2xx the refresh token may well be spent."""
    raise ProviderError(
        _UNUSABLE.format(title=client.title),
        provider=client.name,
        sent=Sent.UNKNOWN if answer.status < 300 else Sent.ANSWERED,
        provider_code=what.replace(" ", "_"),
    )


def _token_set(client: OAuthClient, answer: HttpAnswer, fields: Mapping[str, Any]) -> TokenSet:
    access_token = _at_path(fields, client.provider.access_token.path)
    flaw = _flaw(access_token, fields.get("token_type") or "Bearer")
    refresh_token, scope = fields.get("refresh_token"), fields.get("scope")
    tokens = TokenSet(
        access_token=None if flaw else str(access_token),
        token_type="Bearer",
        # Whatever it is made of, it is the only one that works from now on; and it is sent in bodies only, encoded.
        refresh_token=refresh_token if _can_be_kept(refresh_token) else None,
        expires_in=_lifetime(fields.get("expires_in"), client.provider.access_token.lifetime_seconds),
        refresh_expires_in=_lifetime(
            fields.get("refresh_token_expires_in", fields.get("refresh_expires_in")),
            None,
        ),
        scope=_scope(scope, client.provider.scopes.separator),
    )
    if flaw is None:
        return tokens
    if tokens.refresh_token is None or fields.get("error"):
        _raise_unusable(client, answer, flaw)
    raise TokensIncomplete(
        _UNUSABLE.format(title=client.title),
        provider=client.name,
        provider_code=flaw,
        rest=tokens,
    )


def _flaw(access_token: object, token_type: object) -> str | None:
    """What makes an access token useless."""
    if not _is_token(access_token):
        return NO_ACCESS_TOKEN
    # RFC 6749 section 7.1: a client must not use a token whose type it does not understand.
    if not isinstance(token_type, str) or token_type.lower() not in {"bearer", "bot", "user"}:
        return UNKNOWN_TOKEN_TYPE
    return None


def _at_path(fields: Mapping[str, Any], path: str) -> Any:
    """The member at `path`, whose steps are separated by dots."""
    value: Any = fields
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _is_token(value: object) -> bool:
    return isinstance(value, str) and bool(_VSCHAR.fullmatch(value))


def _can_be_kept(refresh_token: object) -> bool:
    """Not half of a surrogate pair, which JSON can name and nobody can send."""
    return isinstance(refresh_token, str) and refresh_token != "" and not _SURROGATE.search(refresh_token)


def _lifetime(value: object, default: int | None) -> int | None:
    """Whole seconds, also from the strings and floats that some send; missing or 0 is the entry's default."""
    try:
        numeric = isinstance(value, str | int | float) and not isinstance(value, bool)
        seconds = int(float(value)) if numeric else 0  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        seconds = 0
    return min(seconds, _MAX_LIFETIME_SECONDS) if seconds > 0 else default


def _scope(value: object, separator: str) -> str | None:
    """Space-separated, whatever the provider's own form: with commas, or as an array.

    What is no scope token (RFC 6749 section 3.3) is left out: it must not keep a good answer from being stored.
    """
    if isinstance(value, list):
        words = [word for word in value if isinstance(word, str)]
    elif isinstance(value, str):
        words = value.replace(separator, " ").split()
    else:
        return None
    return " ".join(word for word in words if _SCOPE_TOKEN.fullmatch(word))
