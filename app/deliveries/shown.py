"""What people may see of what is sent and answered: enough to understand why a delivery died, without what is secret. Pure.

Keys are kept and values blanked where their name says that they are secret, or where they look like a token; what is long is
cut.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from app.deliveries.delivery import Content
from app.telemetry import REDACTED, redact_text

MOST_CHARACTERS = 200  # of a text within a body
MOST_ITEMS = 20  # of a list or an object
MOST_DEPTH = 8
MOST_RECORDS = 10
MOST_TEXT = 4000  # of a body that is no JSON
_CUT = "…"
_SECRET = re.compile(
    r"token|secret|passw|pwd|auth|cookie|credential|api[-_]?key|apikey|private[-_]?key|signature|session"
    r"|\bkey\b|\bpin\b|\bcvc|\bcvv|\bssn\b|\biban\b|card[-_]?number|account[-_]?number",
    re.IGNORECASE,
)


def shown_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """By their names; of those that look secret the name only."""
    return {
        name: REDACTED if _SECRET.search(name) else _cut(redact_text(value), MOST_CHARACTERS)
        for name, value in headers
    }


def shown_body(content: Content) -> Any:
    """The body's value, or of a batch the first records'; None where nothing is sent."""
    if content.records is not None:
        return [shown_text(record) for record in content.records[:MOST_RECORDS]]
    return None if content.body is None else shown_text(content.body)


def shown_text(text: str) -> Any:
    """Of JSON its value, of anything else the text."""
    try:
        return shown(json.loads(text))
    except (ValueError, RecursionError):
        return _cut(redact_text(text[: 2 * MOST_TEXT]), MOST_TEXT)


def shown(value: Any, name: str = "", depth: int = 0) -> Any:
    """A JSON value with its shape, but not its secrets nor all of its length."""
    if value is not None and not isinstance(value, bool) and _SECRET.search(name):
        return REDACTED
    if isinstance(value, str):
        return _cut(redact_text(value[: 2 * MOST_TEXT]), MOST_CHARACTERS)
    if isinstance(value, dict | list) and depth >= MOST_DEPTH:
        return _CUT
    if isinstance(value, dict):
        fields = list(value.items())[:MOST_ITEMS]
        kept = {_cut(key, MOST_CHARACTERS): shown(item, key, depth + 1) for key, item in fields}
        return kept if len(value) <= MOST_ITEMS else {**kept, _CUT: f"{len(value) - MOST_ITEMS} more"}
    if isinstance(value, list):
        items = [shown(item, name, depth + 1) for item in value[:MOST_ITEMS]]
        return items if len(value) <= MOST_ITEMS else [*items, f"{_CUT} {len(value) - MOST_ITEMS} more"]
    return value


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}{_CUT}"
