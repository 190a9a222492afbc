"""Where a call leads: below the address of the provider's API, and nowhere else. Pure.

What is between us and the provider's code (balancers, frameworks) may decode a path once more, or fold it. So whatever
leads upwards or away in any reading is refused rather than cleaned, and what is let through is sent as it came.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote_to_bytes

from app.errors import ValidationFailed
from app.oauth.client import OAuthClient

_PATH = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")  # RFC 3986 section 3.3
_QUERY = re.compile(r"[!-\"$-~]*")  # printable ASCII without `#`: many send more than the RFC allows there
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:/")
_SPLIT = re.compile(r"[/\\]")
_PARAMETERS = re.compile(r"[;?#]")
_DECODINGS = 8
_CONTROLS = {"Cc", "Cf", "Zl", "Zp", "Cs"}


def url_below(base: str, target: str) -> str:
    """The base and, below it, the target: a path and perhaps a query, raw. An empty path is the base itself.

    Raises ValidationFailed for a target that could lead anywhere else.
    """
    path, mark, query = target.partition("?")
    if mistake := mistake_in(path) or _mistake_in_query(query):
        raise ValidationFailed(f"The path cannot be passed on: it {mistake}.", fields={"path": mistake})
    root = base.rstrip("/")
    below = f"/{path}" if path else ("/" if root.count("/") < 3 else "")  # RFC 9110 section 4.2.3
    return f"{root}{below}{mark}{query}"


def base_of(client: OAuthClient) -> str:
    """Where the API of that registration begins. Raises ValidationFailed where it has none."""
    template = client.provider.api.base_url
    if template is None:
        mistake = (
            "has no address of an API in this service's catalogue, so there is nowhere to pass calls on to; "
            "an operator can add one (`api.base_url`)"
        )
        raise ValidationFailed(f"{client.title} {mistake}.", fields={"path.provider": mistake})
    try:
        return client.provider.resolve(template, client.variables)
    except ValueError as error:
        raise ValidationFailed(
            f"The address of {client.title}'s API is not complete: its registration lacks a setting.",
            fields={"path.provider": str(error)},
        ) from None


def mistake_in(path: str) -> str | None:
    """Why a raw path, without its leading slash, must not be sent below another one; None if it may."""
    if not _PATH.fullmatch(path):
        return "holds characters that no path holds (RFC 3986); percent-encode them"
    if _ABSOLUTE.match(path):
        return "begins like an address of its own; give what follows the API's address only"
    text = path
    for _ in range(_DECODINGS):
        if mistake := _mistake_in_reading(text):
            return mistake
        decoded = _decoded(text)
        if decoded is None:
            return "is not UTF-8 when it is decoded; percent-encode UTF-8"
        if decoded == text:
            return None
        text = decoded
    return "is percent-encoded too often; encode it once"


def _mistake_in_reading(text: str) -> str | None:
    """Of a path as it is after some number of decodings."""
    if any(unicodedata.category(character) in _CONTROLS for character in text):
        return "holds control characters"
    folded = unicodedata.normalize("NFKC", text)  # what full-width dots and slashes are taken for
    if "\\" in text or "\\" in folded:
        return "holds a backslash, which some servers take for a slash"
    if folded.startswith("/"):
        return "begins with a second slash; give what follows the API's address, without one in front"
    if any(map(_is_dots, _SPLIT.split(folded))):
        return "holds a segment of dots; name what you mean without going up"
    return None


def _is_dots(segment: str) -> bool:
    """Whether some server may read it as `.` or `..`: with parameters, blanks or more dots behind them as well."""
    name = _PARAMETERS.split(segment, maxsplit=1)[0]
    return "." in name and not name.strip(". \t")


def _decoded(text: str) -> str | None:
    try:
        return unquote_to_bytes(text).decode("utf-8")  # which refuses overlong forms
    except UnicodeDecodeError:
        return None


def _mistake_in_query(query: str) -> str | None:
    if _QUERY.fullmatch(query):
        return None
    return "has a query with characters that no query holds (RFC 3986); percent-encode them"
