"""What people may see of what is sent and answered: enough to understand why a delivery died, without what is secret. Pure.

Keys are kept and values blanked where their name says that they are secret, or where they look like a token; what is long is
cut.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote_plus

from app.deliveries.delivery import Content
from app.telemetry import REDACTED, redact_text

MOST_CHARACTERS = 200  # of a text within a body
MOST_ITEMS = 20  # of a list or an object
MOST_DEPTH = 8
MOST_RECORDS = 10
MOST_TEXT = 4000  # of a body that is no JSON
_CUT = "…"
_WITHIN = re.compile(  # a name without what is between its words
    r"token|secret|passw|passphrase|pwd|auth|cookie|credential|bearer|jwt|signature|session"
    r"|cardnumber|accountnumber"
)
_WORDS = frozenset(
    {"pin", "pass", "pw", "psk", "otp", "totp", "sig", "hmac", "creds", "cvc", "cvv", "ssn", "iban"}
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_LABELS = ("name", "key", "field", "property", "header", "id")  # of what stands beside it as `value`
_VALUES = ("value", "values")
_MARKED = re.compile(r"(?<![\w.%+-])(?P<name>[\w.%+-]++)\]?\\*[\"']?\s*+[=:]\s*+")  # in queries, forms, texts
_VALUE = re.compile(r"[\[{](?s:.)*+|\\*\"(?:\\[^\"]|[^\"\\])*+\\*\"?|'[^']*+'?|[^&\s;,}\"']*+")
_HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair, which no UTF-8 can hold


def is_secret(name: str) -> bool:
    """Whether what goes under this name had better not be seen, however its words are put together."""
    words = [word.lower() for word in _WORD.findall(unquote_plus(name))]
    return _WITHIN.search("".join(words)) is not None or any(
        word in _WORDS or word.endswith("key") for word in words
    )


def shown_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """By their names; of those that look secret the name only."""
    return {
        name: REDACTED if is_secret(name) else _cut(_redacted(value), MOST_CHARACTERS)
        for name, value in headers
    }


def shown_body(content: Content) -> Any:
    """The body's value, or of a batch the first records'; None where nothing is sent."""
    if content.records is not None:
        return [shown_text(record) for record in content.records[:MOST_RECORDS]]
    return None if content.body is None else shown_text(content.body)


def shown_query(query: str | None) -> str | None:
    """With its names; None where there is none."""
    return None if query is None else _cut(_redacted(query), MOST_TEXT)


def shown_text(text: str) -> Any:
    """Of JSON its value, of anything else the text."""
    try:
        return shown(json.loads(text, parse_constant=str, parse_float=_number))
    except (ValueError, RecursionError):
        return _cut(_redacted(text[: 2 * MOST_TEXT]), MOST_TEXT)


def shown(value: Any, name: str = "", depth: int = 0) -> Any:
    """A JSON value with its shape, but not its secrets nor all of its length."""
    if value is not None and not isinstance(value, bool) and is_secret(name):
        return REDACTED
    if isinstance(value, str):
        return _cut(_redacted(value[: 2 * MOST_TEXT]), MOST_CHARACTERS)
    if isinstance(value, dict | list) and depth >= MOST_DEPTH:
        return _CUT
    if isinstance(value, dict):
        fields = list(value.items())[:MOST_ITEMS]
        names = _names(value)
        kept = {
            _cut(key, MOST_CHARACTERS): shown(item, names.get(key) or key, depth + 1) for key, item in fields
        }
        return kept if len(value) <= MOST_ITEMS else {**kept, _CUT: f"{len(value) - MOST_ITEMS} more"}
    if isinstance(value, list):
        items = [shown(item, name, depth + 1) for item in value[:MOST_ITEMS]]
        return items if len(value) <= MOST_ITEMS else [*items, f"{_CUT} {len(value) - MOST_ITEMS} more"]
    return value


def _names(fields: dict[Any, Any]) -> dict[str, str]:
    """What `value` is called by what stands beside it: `{"name": "password", "value": "..."}`."""
    labels = {name.lower(): label for name, label in fields.items() if isinstance(label, str)}
    secret = next((labels[each] for each in _LABELS if each in labels and is_secret(labels[each])), None)
    return {} if secret is None else {name: secret for name in fields if name.lower() in _VALUES}


def _redacted(text: str) -> str:
    """Without what looks like a token, and without values that a query or a form gives to secret names."""
    text = redact_text(text)
    kept: list[str] = []
    at, follows = 0, False
    for found in _MARKED.finditer(text):
        name, value = found["name"], _VALUE.match(text, found.end())
        if found.start() < at or value is None or not value[0]:
            continue
        if is_secret(name) or (follows and name.lower() in _VALUES):
            kept += [text[at : found.end()], REDACTED]
            at = value.end()
        if name.lower() in _LABELS:
            follows = is_secret(value[0])
    return "".join([*kept, text[at:]])


def _number(written: str) -> float | str:
    """As it is written where it is too large for what shows it."""
    number = float(written)
    return number if math.isfinite(number) else written


def _cut(text: str, most: int) -> str:
    text = _HALF.sub("\ufffd", text)
    return text if len(text) <= most else f"{text[:most]}{_CUT}"
