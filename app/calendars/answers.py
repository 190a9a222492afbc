"""JSON that a calendar API answers, made such that it can be kept. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from app.calendars.trouble import ErrorType, SyncFailed, Trouble
from app.oauth.wire import HttpAnswer

_ODD = (b"\\u0000", b"\\ud", b"\\uD", b"\x00")


def fields_of(answer: HttpAnswer, calendar: str) -> dict[str, Any]:
    """The answer's JSON object, without what PostgreSQL does not keep: NUL, half surrogates, numbers that are none.

    Raises SyncFailed for anything else; `calendar` is what people call the provider's.
    """
    try:
        fields = json.loads(answer.body, parse_constant=_nothing, parse_float=_finite)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise SyncFailed(Trouble(ErrorType.PROVIDER_UNAVAILABLE, calendar, provider_code="unusable_answer"))
    if any(each in answer.body for each in _ODD):
        return {_storable(name): _storable(member) for name, member in fields.items()}
    return fields


def text_of(fields: Mapping[str, Any], name: str) -> str | None:
    """The member, if it is text with something in it."""
    value = fields.get(name)
    return value if isinstance(value, str) and value else None


def instant(text: str) -> datetime:
    """An instant in UTC; one that names no offset is in UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


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
