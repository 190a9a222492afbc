"""URLs of a catalogue entry: what they may look like, and how their `{variable}` parts are filled in.

A templated host is a door to foreign and internal hosts (SSRF), so a value may hold nothing but the unreserved
characters of RFC 3986 section 2.3, whatever its pattern allows, and the filled URL is checked once more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
MAX_VALUE = 253  # the longest host name (RFC 1035 section 2.3.4)

_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_CHARACTERS = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")  # RFC 3986 section 2
_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*|::1")
_UNRESERVED = re.compile(r"[A-Za-z0-9\-._~]+")
_NUMERIC = re.compile(r"(.*\.)?(\d+|0x[0-9a-f]*)")  # a host that ends so is read as an IPv4 address


def placeholders(url: str) -> frozenset[str]:
    """The names of its `{variable}` parts."""
    return frozenset(_PLACEHOLDER.findall(url))


def mistake_in(url: str) -> str | None:
    """What is wrong with an endpoint's URL (RFC 6749 section 3.1, RFC 8414 section 2); None if nothing is."""
    filled = _PLACEHOLDER.sub("x", url)
    if not _CHARACTERS.fullmatch(filled):
        return f"holds characters that no URL holds, or a brace that is no {{variable}} (got {url!r})"
    scheme, host = _scheme_and_host(filled)
    if not _HOST.fullmatch(host):
        return f"must be an absolute URL, such as https://login.example.com/token (got {url!r})"
    if "@" in urlsplit(filled).netloc:
        return "must not hold a user name or password"
    if scheme != "https" and not (scheme == "http" and host in LOOPBACK_HOSTS):
        return f"must start with https:// (got {url!r})"
    if "#" in filled:
        return "must not have a fragment"
    return None


def is_loopback(url: str) -> bool:
    """Whether it leads to this machine."""
    return _scheme_and_host(_PLACEHOLDER.sub("x", url))[1] in LOOPBACK_HOSTS


def address_in(url: str) -> str | None:
    """Its host, where that is an IPv4 address in any of the forms that resolvers read (`127.1`, `0x7f000001`), or IPv6;
    None for a name."""
    host = _scheme_and_host(_PLACEHOLDER.sub("x", url))[1]
    return host if ":" in host or _NUMERIC.fullmatch(host) else None


def may_fill(value: str, pattern: str) -> bool:
    """Whether the value matches all of the pattern and can neither end nor widen the part of a URL it fills."""
    if len(value) > MAX_VALUE or not _UNRESERVED.fullmatch(value):
        return False
    if "" in value.split("."):  # an empty host label, or a path that climbs with `..`
        return False
    return re.fullmatch(pattern, value) is not None


def fill(url: str, values: Mapping[str, str]) -> str:
    """The URL with each `{variable}` replaced by its value, which `may_fill` has allowed.

    Raises ValueError where the outcome is no URL an entry may have, or its host became a numeric address or
    this machine through a value.
    """
    filled = _PLACEHOLDER.sub(lambda part: values[part[1]], url)
    if wrong := mistake_in(filled):
        raise ValueError(f"{url}, filled in, {wrong}.")
    host = _scheme_and_host(filled)[1]
    if "{" in urlsplit(url).netloc and (host in LOOPBACK_HOSTS or _NUMERIC.fullmatch(host)):
        raise ValueError(f"{url}, filled in, leads to the address {host}, not to a named host.")
    return filled


def _scheme_and_host(url: str) -> tuple[str, str]:
    """Both in lower case; the host is empty where the URL has none or cannot be parsed."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 -- raises ValueError unless it is a port
        return parts.scheme, parts.hostname or ""
    except ValueError:
        return "", ""
