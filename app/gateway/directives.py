"""What a call and its answer say about being kept (RFC 9111), in the little of it that the gateway goes by. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

Headers = Iterable[tuple[str, str]]  # names in lower case

# A whole body that is no larger may be kept, and shared by who asks for it at the same moment.
MOST_BODY_BYTES = 1024 * 1024
_STREAMED = ("text/event-stream", "application/x-ndjson", "application/jsonl", "multipart/x-mixed-replace")
_PARTIAL = frozenset({"range", "if-range", "if-match", "if-unmodified-since"})
_CONDITIONS = frozenset({"if-none-match", "if-modified-since"})
# Who asks and on whose behalf, not what: none of it is sent upstream, or none of it changes the answer.
_TELLS_NOTHING = frozenset(
    {
        "authorization", "x-api-key", "cookie", "cache-control", "pragma", "host", "connection", "content-length",
        "traceparent", "tracestate", "baggage", "x-request-id", "x-correlation-id", "x-broker-account",
        "x-broker-retry", "if-none-match", "if-modified-since",
    }
)  # fmt: skip
_SAME_FOR_ONE_GRANT = frozenset({"authorization", "cookie", "origin"})


@dataclass(frozen=True)
class Wish:
    """What a GET or HEAD asks of what may be kept. `passes`: to have nothing to do with it. `anew`: to ask the provider
    all the same. `most_age`: of the answer, in seconds. `conditions`: its own validators (RFC 9110 section 13.1)."""

    passes: bool = False
    anew: bool = False
    most_age: float | None = None
    conditions: tuple[tuple[str, str], ...] = ()


_PASSES = Wish(passes=True)


def wish_of(method: str, headers: Headers, *, has_body: bool) -> Wish:
    """Of any call: one that is not plain passes by."""
    if method not in {"GET", "HEAD"} or has_body:
        return _PASSES
    given = list(headers)
    said = directives(given)
    if "no-store" in said or any(name in _PARTIAL for name, _ in given):
        return _PASSES
    age = said.get("max-age", "")
    most_age = float(age) if age.isascii() and age.isdigit() else None
    is_pragma = not said and any(name == "pragma" and "no-cache" in value for name, value in given)
    conditions = tuple(each for each in given if each[0] in _CONDITIONS)
    return Wish(
        anew="no-cache" in said or is_pragma or most_age == 0, most_age=most_age, conditions=conditions
    )


def directives(headers: Headers) -> Mapping[str, str]:
    """Those of `Cache-Control`, with their arguments (RFC 9111 section 5.2)."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name == "cache-control":
            for part in value.split(","):
                directive, _, argument = part.strip().partition("=")
                if directive:
                    found[directive.lower()] = argument.strip('" ')
    return found


def varying(headers: Headers) -> tuple[tuple[str, str], ...]:
    """All that an answer may depend on: whatever is sent, whether or not `Vary` will name it (RFC 9111 section 4.1), since
    many an API forgets to."""
    return tuple(sorted(each for each in headers if each[0] not in _TELLS_NOTHING))


def streams(headers: Headers) -> bool:
    """Whether the body is read piece by piece as it comes, or is too large to be kept as a whole."""
    given = dict(headers)
    length = given.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > MOST_BODY_BYTES:
        return True
    return given.get("content-type", "").strip().lower().startswith(_STREAMED)


def may_be_kept(status: int, headers: Headers) -> bool:
    """Whether the provider lets an answer be kept at all; for how long is what the registration says.

    Of 200 only: an error, or that something is not there (404) or elsewhere (301), would be believed for too long.
    """
    given = list(headers)
    if status != 200 or "no-store" in directives(given):
        return False
    varies = {each.strip().lower() for name, value in given if name == "vary" for each in value.split(",")}
    return not varies & ((_TELLS_NOTHING - _SAME_FOR_ONE_GRANT) | {"*"})


def is_unchanged(conditions: Headers, headers: Mapping[str, str]) -> bool:
    """Whether who asks under these conditions has what an answer with those headers has (RFC 9110 section 13.2.2)."""
    given = dict(conditions)
    if "if-none-match" in given:
        tag = _weak(headers.get("etag", ""))
        wanted = given["if-none-match"].strip()
        return bool(tag) and (wanted == "*" or tag in map(_weak, _tags(wanted)))
    since, modified = _date(given.get("if-modified-since", "")), _date(headers.get("last-modified", ""))
    return since is not None and modified is not None and modified <= since


def _tags(field: str) -> Iterable[str]:
    """Of a list of entity tags, in which commas may stand."""
    parts = field.split('"')
    return (f'"{parts[at]}"' for at in range(1, len(parts), 2))


def _weak(tag: str) -> str:
    return tag.strip().removeprefix("W/")


def _date(value: str) -> datetime | None:
    try:
        return parsedate_to_datetime(value) if 0 < len(value) <= 64 else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
