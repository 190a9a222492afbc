"""For how long the answers of a provider's API are good: what a registration says of its resources. Pure.

A resource is named by a path below the API's base, and whatever lies below it is of it: by whole segments, as they read
without percent-encoding (RFC 3986 section 6.2.2), since an API may take `/%63ontacts` for `/contacts`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote

MOST_RESOURCES = 100
MOST_SECONDS = 86400
LONGEST_PATH = 1000
_PATH = re.compile(r"/|(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)+")
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

Segments = tuple[str, ...]


def segments(path: str) -> Segments:
    """Of a path or a target, whose query counts for nothing."""
    path = path.partition("?")[0].strip("/")
    return tuple(map(unquote, path.split("/"))) if path else ()


def is_below(path: Segments, above: Segments) -> bool:
    """Whether it is the same, or lies below."""
    return path[: len(above)] == above


def seconds_of(resources: Mapping[str, int], target: str) -> int:
    """How long an answer to a GET of `target` is kept: what the longest path above it says; 0 where none does."""
    if not resources:
        return 0
    path = segments(target)
    above = [each for each in resources if is_below(path, segments(each))]
    return resources[max(above, key=lambda each: len(segments(each)))] if above else 0


def written(resources: Mapping[str, int], target: str) -> str:
    """Below which path answers may be others after a write to `target`: the outermost resource that it lies in, and where it
    lies in none, all that begins with its first segment."""
    path = segments(target)
    above = [each for each in resources if is_below(path, segments(each))]
    if above:
        return min(above, key=lambda each: len(segments(each)))
    return "/" + target.partition("?")[0].lstrip("/").partition("/")[0]


def mistake(resources: Mapping[str, int]) -> str | None:
    """What is wrong with the first that is; None where all can work."""
    if len(resources) > MOST_RESOURCES:
        return f"must not name more than {MOST_RESOURCES} resources"
    named: dict[Segments, str] = {}
    for path, seconds in resources.items():
        wrong = path_mistake(path)
        if wrong is not None:
            return f"{path[:100]!r} {wrong}"
        if not 0 <= seconds <= MOST_SECONDS:
            return f"{path!r} must be kept for 0 to {MOST_SECONDS} seconds (got {seconds})"
        twin = named.setdefault(segments(path), path)
        if twin != path:
            return f"{path!r} is the same as {twin!r}"
    return None


def path_mistake(path: str) -> str | None:
    """Why that names no resource."""
    if len(path) > LONGEST_PATH:
        return f"must not be longer than {LONGEST_PATH} characters"
    if not _PATH.fullmatch(path) or _ESCAPE.search(path):
        return "must be a path below the API's base, such as /contacts, without a query"
    for each in segments(path):
        if each in {".", ".."} or "/" in each or "\\" in each:
            return "must not have segments that lead elsewhere"
    return None
