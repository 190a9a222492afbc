"""HTTP as values: what is sent to a provider, and what comes back. Pure."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

_MAX_RETRY_AFTER_SECONDS = 86400
_MAX_DATE_LENGTH = 64
_WINDOW_BITS = {
    "gzip": (31,),
    "x-gzip": (31,),
    "deflate": (15, -15),
}  # as zlib names its formats; some forget deflate's head


@dataclass(frozen=True)
class HttpRequest:
    """A request to one of a provider's endpoints. Its headers and its body must never be logged."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    method: str = "POST"


@dataclass(frozen=True)
class StreamRequest:
    """A request to a provider's API whose answer is read as it comes. The URL goes over the wire as it stands; it has to lie
    at `base` or below. Neither its headers nor its body may be logged."""

    method: str
    url: str
    base: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | AsyncIterable[bytes] = field(default=b"", repr=False)


def expanded(body: bytes, encoding: str, *, limit: int) -> bytes | None:
    """The body without its content coding (RFC 9110 section 8.4), or as it is where that is none we know or does not fit it;
    None if it would be larger than `limit`, of which it is not made first.

    We ask for none. But some compress all the same, and what they send may be the only refresh token that works.
    """
    for bits in _WINDOW_BITS.get(encoding.strip().lower(), ()):
        try:
            whole = zlib.decompressobj(bits).decompress(body, limit + 1)
        except zlib.error:
            continue
        return None if len(whole) > limit else whole
    return body


def expanded_up_to(body: bytes, encoding: str, *, limit: int) -> tuple[bytes, bool]:
    """The first `limit` bytes of the body without its content coding, and whether that is all of it. `body` may be only the
    beginning. One in a coding that we do not know is answered as it is."""
    for bits in _WINDOW_BITS.get(encoding.strip().lower(), ()) if body else ():
        coding = zlib.decompressobj(bits)
        try:
            text = coding.decompress(body, limit)
        except zlib.error:
            continue
        return text, coding.eof and not coding.unconsumed_tail
    return body[:limit], len(body) <= limit


def is_expandable(encoding: str) -> bool:
    """Whether it is a content coding that we know."""
    return encoding.strip().lower() in _WINDOW_BITS


@dataclass(frozen=True)
class HttpAnswer:
    """What came back: `headers` with lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json_object(self) -> dict[str, Any]:
        """The body as a JSON object; an empty one for anything else."""
        try:
            fields = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return fields if isinstance(fields, dict) else {}

    def retry_after(self) -> int | None:
        """What `retry_after` makes of its headers."""
        return retry_after(self.headers)


def retry_after(headers: Mapping[str, str]) -> int | None:
    """`Retry-After` in whole seconds, at most a day (RFC 9110 section 10.2.3).

    Where it is a date it counts from the answer's own `Date`, so that it does not matter whose clock is wrong;
    without that it is unknown.
    """
    value = headers.get("retry-after", "")
    if value.isascii() and value.isdigit() and len(value) < 10:
        return min(int(value), _MAX_RETRY_AFTER_SECONDS)
    until, now = _http_date(value), _http_date(headers.get("date", ""))
    if until is None or now is None:
        return None
    return min(max(0, int((until - now).total_seconds())), _MAX_RETRY_AFTER_SECONDS)


def _http_date(value: str) -> datetime | None:
    """A date in any of the three forms of RFC 9110 section 5.6.7; None for anything else."""
    if len(value) > _MAX_DATE_LENGTH:
        return None
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)  # the form of asctime names no zone
