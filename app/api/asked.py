"""What a request for a token asks, read without the framework: a GET of an ordinary kind. Pure.

Whatever is unusual is left to the route, which alone says what is wrong with it. What is read here is checked by the
route's own types, so that both take it for the same.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl

from pydantic import TypeAdapter, ValidationError

from app.api.deps import OpaqueName, ProviderPath, UserPath
from app.grants.grant import DEFAULT_ACCOUNT
from app.grants.token import DEFAULT_MIN_TTL

ROUTE = "/tokens/{provider}/{user_id}"
_PATH = re.compile(r"(?P<prefix>/api/v1)?/tokens/(?P<provider>[^/]+)/(?P<user>[^/]+)")
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}")
_SECONDS = re.compile(r"0|[1-9][0-9]{0,4}")
_MIN_TTL = int(DEFAULT_MIN_TTL.total_seconds())
_MOST_SECONDS = 86400
_WAITED_SECONDS = 120
_PARAMETERS = {"min_ttl", "account", "scope", "wait"}
_LONGEST = 2000
_REMEMBERED = 1_000
_provider: TypeAdapter[str] = TypeAdapter(ProviderPath)
_user: TypeAdapter[str] = TypeAdapter(UserPath)
_account: TypeAdapter[str] = TypeAdapter(OpaqueName)


class Asked(NamedTuple):
    """`route` is the template, as metrics and logs have it; `min_ttl` is in seconds."""

    route: str
    provider: str
    user_id: str
    account: str
    min_ttl: int
    scope: str


@lru_cache(_REMEMBERED)
def asked(raw_path: bytes, query: bytes) -> Asked | None:
    """What the request asks; None where it is better left to the route."""
    if len(raw_path) + len(query) > _LONGEST or not (raw_path.isascii() and query.isascii()):
        return None
    path = _PATH.fullmatch(raw_path.decode())
    pairs = parse_qsl(query.decode(), keep_blank_values=True) if query else []
    parameters = dict(pairs)
    if path is None or len(parameters) < len(pairs) or not parameters.keys() <= _PARAMETERS:
        return None
    try:
        provider, user_id = _name(_provider, path["provider"]), _name(_user, path["user"])
        account = _name(_account, parameters.get("account", DEFAULT_ACCOUNT))
    except ValidationError:
        return None
    min_ttl = _seconds(parameters.get("min_ttl", str(_MIN_TTL)), most=_MOST_SECONDS)
    if min_ttl is None or _seconds(parameters.get("wait", "0"), most=_WAITED_SECONDS) is None:
        return None
    route = (path["prefix"] or "") + ROUTE
    return Asked(route, provider, user_id, account, min_ttl, parameters.get("scope", ""))


def _name(kind: TypeAdapter[str], given: str) -> str:
    """As the route reads it, which takes ten times as long as seeing that there is nothing to be read."""
    return given if _PLAIN.fullmatch(given) else kind.validate_python(given)


def _seconds(given: str, *, most: int) -> int | None:
    return int(given) if _SECONDS.fullmatch(given) and int(given) <= most else None
