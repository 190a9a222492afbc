"""JSON that a calendar API answers, made such that it can be kept. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from app.calendars.trouble import ErrorType, SyncFailed, Trouble
from app.oauth.wire import HttpAnswer

_ODD = (
    b"\\u0000",
    b"\\ud",
    b"\\uD",
    b"\x00",
    b"\xed",
)  # the last begins half a surrogate, or a letter of Korean
_LONGEST_ID = 1024
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def fields_of(answer: HttpAnswer, calendar: str) -> dict[str, Any]:
    """The answer's JSON object, without what PostgreSQL does not keep: NUL, half surrogates, numbers that are none.

    Raises SyncFailed for anything else; `calendar` is what people call the provider's.
    """
    try:
        fields = json.loads(answer.body, parse_constant=_nothing, parse_float=_finite)
        if any(each in answer.body for each in _ODD):
            fields = _storable(fields)
    except (ValueError, RecursionError):
        fields = None
    if isinstance(fields, dict):
        return fields
    raise SyncFailed(Trouble(ErrorType.PROVIDER_UNAVAILABLE, calendar, provider_code="unusable_answer"))


def text_of(fields: Mapping[str, Any], name: str) -> str | None:
    """The member, if it is text with something in it."""
    value = fields.get(name)
    return value if isinstance(value, str) and value else None


def items_of(fields: Mapping[str, Any], name: str, calendar: str) -> list[dict[str, Any]]:
    """The list of that name, of which only objects with an id that can be kept are looked at.

    Raises SyncFailed where there is no such list: that nothing is there is said otherwise.
    """
    items = fields.get(name)
    if not isinstance(items, list):
        raise SyncFailed(Trouble(ErrorType.PROVIDER_UNAVAILABLE, calendar, provider_code="unusable_answer"))
    return [item for item in items if isinstance(item, dict) and is_id(text_of(item, "id"))]


def code_of(word: object) -> str | None:
    """A provider's word for what is wrong, if it is one that may be shown."""
    return word if isinstance(word, str) and _CODE.fullmatch(word) else None


def is_id(text: str | None) -> bool:
    """Whether it is one that can be kept."""
    return text is not None and len(text.encode()) <= _LONGEST_ID


def instant(text: str) -> datetime:
    """An instant in UTC; one that names no offset is in UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def stamp(moment: datetime) -> str:
    """As both APIs take it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _nothing(_constant: str) -> None:
    return None


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_storable(name): _storable(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_storable(member) for member in value]
    return value
