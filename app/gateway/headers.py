"""Which headers pass the gateway. Pure.

    caller -> `sent` -> provider -> `received` -> ourselves -> `answered` -> caller

What belongs to a connection (RFC 9110 section 7.6.1) ends here in both directions, and so does whatever says who somebody is:
our callers' keys are not the provider's business, and its cookies are one user's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import urljoin

Pairs = tuple[tuple[str, str], ...]

_CONNECTION = frozenset(
    {
        "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
        "http2-settings",
    }
)  # fmt: skip
_NOT_SENT = _CONNECTION | frozenset(
    {
        # who calls us, and from where
        "authorization", "x-api-key", "cookie", "cookie2", "forwarded", "x-real-ip", "via", "true-client-ip",
        "cf-connecting-ip", "client-ip", "x-client-ip", "x-cluster-client-ip", "x-original-host", "host",
        # of another address or method than the one that was looked at: retries and rights go by that one
        "x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url",
        # ours to make
        "content-length", "expect", "max-forwards", "x-request-id",
    }
)  # fmt: skip
_NOT_SENT_BEGIN = ("proxy-", "x-broker-", "x-forwarded-")
_NOT_RECEIVED = _CONNECTION | frozenset(
    {
        "set-cookie", "set-cookie2", "authentication-info", "proxy-authenticate", "proxy-authentication-info",
        "clear-site-data",
    }
)  # fmt: skip
# What tells browsers, and caches between us and the caller, about the provider's origin: ours is another one.
_NOT_ANSWERED = frozenset(
    {
        "cache-control", "pragma", "expires", "age", "date", "server", "alt-svc", "vary", "surrogate-control",
        "cdn-cache-control", "strict-transport-security", "public-key-pins", "expect-ct", "nel", "report-to",
        "reporting-endpoints", "content-security-policy", "content-security-policy-report-only", "referrer-policy",
        "permissions-policy", "cross-origin-opener-policy", "cross-origin-embedder-policy",
        "cross-origin-resource-policy", "x-content-type-options", "x-frame-options", "x-xss-protection",
        "service-worker-allowed", "sourcemap", "refresh", "timing-allow-origin", "x-dns-prefetch-control",
    }
)  # fmt: skip
_NOT_ANSWERED_BEGIN = ("x-broker-", "access-control-")
# Of a list. A quotation that nobody ends goes on to the end, rather than being looked for again from every character in it.
_ITEM = re.compile(r'(?:[^",]|"(?:\\.|[^"\\])*+"?)++', re.DOTALL)
_WAIT = re.compile(r"\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")  # RFC 9110 section 5.6.2
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110 section 5.5
# RFC 3986 section 4.3. What begins with `http:` alone is relative to some readers.
_ABSOLUTE = re.compile(r"https?://[^/\\]|(?!https?:)[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_LINKED = re.compile(r'("(?:\\.|[^"\\])*+"?)|<([^<>]*)>', re.DOTALL)  # RFC 8288 section 3
_USER_AGENT = "token-broker"


def sent(given: Iterable[tuple[str, str]], defaults: Mapping[str, str]) -> dict[str, str]:
    """What goes to the provider of a caller's headers, which have lower-case names. `defaults` are the catalogue's, for what
    the caller does not say itself. Lines of one name are one, separated by commas (RFC 9110 section 5.3)."""
    pairs = list(given)
    dropped = _NOT_SENT | _named_by_connection(pairs)
    passed: dict[str, str] = {}
    for name, value in pairs:
        if (read := _as_read(name)) in dropped or read.startswith(_NOT_SENT_BEGIN):
            continue
        if name == "prefer" and (value := without_wait(value)) == "":
            continue
        passed[name] = f"{passed[name]}, {value}" if name in passed else value
    for name, value in defaults.items():
        passed.setdefault(name.lower(), value)
    passed.setdefault("accept", "*/*")
    passed.setdefault("accept-encoding", "identity")  # who does not say what it reads may read no coding
    passed.setdefault("user-agent", _USER_AGENT)  # some APIs refuse requests without one
    return passed


def received(given: Iterable[tuple[str, str]], url: str) -> Pairs:
    """A provider's headers, which have lower-case names, without its connection's and its cookies, and without those that
    are none: what one server lets pass there ends the answer at the next. `url` is what was asked: what they name in relation
    to that is named in full, or the caller would look for it here, and bring its key along."""
    pairs = tuple(given)
    dropped = _NOT_RECEIVED | _named_by_connection(pairs)
    return tuple(
        _in_full(name, value, url)
        for name, value in pairs
        if _as_read(name) not in dropped and _TOKEN.fullmatch(name) and not _CONTROL.search(value)
    )


def answered(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of what was `received`, what a caller of ours gets: nothing by which it would take the answer for ours, or keep it where
    others find it. The provider's request id has a name of its own."""
    return [
        ("x-upstream-request-id" if name == "x-request-id" else name, value)
        for name, value in pairs
        if (read := _as_read(name)) not in _NOT_ANSWERED and not read.startswith(_NOT_ANSWERED_BEGIN)
    ]


def wait_in(prefer: str) -> int | None:
    """Seconds of `Prefer: wait=` (RFC 7240 section 4.3); None where it is not there."""
    for item in _ITEM.findall(prefer):
        if (match := _WAIT.fullmatch(item)) is not None:
            return int(match[1])
    return None


def without_wait(prefer: str) -> str:
    """The other preferences, which are the provider's to honour."""
    return ", ".join(item.strip() for item in _ITEM.findall(prefer) if _WAIT.fullmatch(item) is None)


def _named_by_connection(pairs: Iterable[tuple[str, str]]) -> frozenset[str]:
    return frozenset(
        _as_read(token.strip().lower())
        for name, value in pairs
        if name == "connection"
        for token in value.split(",")
    )


def _in_full(name: str, value: str, url: str) -> tuple[str, str]:
    """With addresses that are relative to `url` resolved (RFC 9110 sections 8.7 and 10.2.2)."""
    if name in {"location", "content-location"}:
        return name, _resolved(value, url)
    if name == "link":
        return name, _LINKED.sub(lambda found: found[1] or f"<{_resolved(found[2].strip(), url)}>", value)
    return name, value


def _resolved(reference: str, url: str) -> str:
    """An absolute one as it is. What cannot be resolved is not led anywhere but to what was asked."""
    if _ABSOLUTE.match(reference):
        return reference
    try:
        full = urljoin(url, reference)
    except ValueError:
        return url
    return full if _ABSOLUTE.match(full) else url


def _as_read(name: str) -> str:
    """As servers read it that hand headers on as variables (RFC 3875 section 4.1.18): there `_` and `-` are the same."""
    return name.replace("_", "-")
