"""What is asked for: a call, or many records in calls of so many, and what of it may be sent. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.deliveries.delivery import Content
from app.errors import ValidationFailed
from app.gateway.headers import sent as passed
from app.gateway.target import url_below
from app.grants.grant import GrantKey

DEFAULT_ATTEMPTS = 8
MAX_ATTEMPTS = 50
MAX_DELAY = timedelta(days=30)
MAX_CHUNK_CHARACTERS = 1024 * 1024  # of a batch's request, as much as of a single one's
MAX_HEADERS = 50
MAX_HEADER_CHARACTERS = 16 * 1024  # names and values together
METHODS = ("POST", "PUT", "PATCH", "DELETE")

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")  # RFC 9110 section 5.5
_ANYWHERE = "https://api.invalid"
_JSON_TYPE = re.compile(r"application/(?:[\w.+-]+\+)?json(?:\s*;.*)?", re.IGNORECASE)
_OURS = frozenset(
    {"idempotency-key", "content-encoding"}
)  # the delivery's id; and a body is sent as it is kept


@dataclass(frozen=True)
class Wanted:
    """One call. `path` lies below the API's base, without the query, which is in `content`; `not_before` None: at once.
    `retry_on`: statuses that are tried again, whatever they mean elsewhere."""

    key: GrantKey
    method: str
    path: str
    content: Content = field(repr=False)
    not_before: datetime | None = None
    max_attempts: int = DEFAULT_ATTEMPTS
    retry_on: tuple[int, ...] | None = None


@dataclass(frozen=True)
class WantedBatch:
    """Many `records`, each as JSON, sent `records_per_request` at a time, `concurrency` requests at once."""

    key: GrantKey
    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    records: tuple[str, ...] = field(repr=False)
    records_per_request: int
    concurrency: int
    wrap: str | None = None
    query: str | None = field(default=None, repr=False)
    max_attempts: int = DEFAULT_ATTEMPTS
    retry_on: tuple[int, ...] | None = None

    def chunks(self) -> Iterator[tuple[int, Content]]:
        """What each request sends, and the place of its first record in the batch, from 0."""
        for first in range(0, len(self.records), self.records_per_request):
            records = self.records[first : first + self.records_per_request]
            yield first, Content(self.headers, None, records, self.query)

    def require_small_chunks(self) -> None:
        """Raises ValueError where a request would be larger than a single delivery may be."""
        for first, content in self.chunks():
            if sum(map(len, content.records or ())) > MAX_CHUNK_CHARACTERS:
                raise ValueError(
                    f"the request that begins with record {first} would be over 1 MiB; put fewer into one"
                )


def checked_headers(given: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The headers with lower-case names. Raises ValueError naming the one that cannot be sent."""
    if len(given) > MAX_HEADERS:
        raise ValueError(f"must be {MAX_HEADERS} at most")
    if sum(len(name) + len(value) for name, value in given.items()) > MAX_HEADER_CHARACTERS:
        raise ValueError(f"must have {MAX_HEADER_CHARACTERS // 1024} KiB at most")
    checked: dict[str, str] = {}
    for name, value in given.items():
        if mistake := _header_mistake(name.lower(), value):
            raise ValueError(f"{name[:64]!r}: {mistake}")
        if checked.setdefault(name.lower(), value) != value:
            raise ValueError(f"{name[:64]!r}: is there twice")
    return tuple(checked.items())


def _header_mistake(name: str, value: str) -> str | None:
    if not _NAME.fullmatch(name):
        return "is no name of a header"
    # What the gateway would drop is refused: silently left out, it would be another call.
    if name in _OURS or name not in passed([(name, value)], {}):
        return "is set by this service or by the connection; leave it out"
    if value and not _VALUE.fullmatch(value):
        return "must be of visible ASCII characters, spaces and tabs within"
    return None


def with_body(
    headers: tuple[tuple[str, str], ...], *, json_text: str | None, text: str | None
) -> tuple[tuple[tuple[str, str], ...], str | None]:
    """The headers and the body that are sent for a body given as JSON, `text` being its value where it is a string.

    A string goes as it is where the caller names its Content-Type; everything else goes as JSON. Raises ValueError where what
    is no string is called something else than JSON.
    """
    content_type = dict(headers).get("content-type")
    if json_text is None:
        return headers, None
    if content_type is None:
        return (*headers, ("content-type", "application/json")), json_text
    if text is not None:
        return headers, text
    if not _JSON_TYPE.fullmatch(content_type):
        raise ValueError("must be a string where the header Content-Type says that it is not JSON")
    return headers, json_text


def checked_path(path: str) -> str:
    """The path with a slash in front. Raises ValueError for one that could leave the API's base."""
    target = path.removeprefix("/")
    try:
        url_below(_ANYWHERE, target)
    except ValidationFailed as error:
        raise ValueError(f"it {error.fields['path']}") from None
    return f"/{target}"
