"""The headers that every answer has, pages apart, which have their own of some (OWASP, HTTP security response headers)."""

from __future__ import annotations

from collections.abc import Iterable

Pairs = tuple[tuple[bytes, bytes], ...]

# Answers are read by programs: where a browser shows one all the same, it may do nothing with it.
_CONTENT_SECURITY_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
# What a page of ours needs of a browser: nothing.
PERMISSIONS_POLICY = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"
_YEAR_SECONDS = 365 * 86400


def always(base_url: str) -> Pairs:
    """Lower-case names and values; with HSTS where `base_url` is https."""
    values = {
        "cache-control": "no-store",
        "content-security-policy": _CONTENT_SECURITY_POLICY,
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }
    if base_url.startswith("https://"):
        values["strict-transport-security"] = f"max-age={_YEAR_SECONDS}"
    return tuple((name.encode(), value.encode()) for name, value in values.items())


def completed(headers: Iterable[tuple[bytes, bytes]], defaults: Pairs) -> list[tuple[bytes, bytes]]:
    """The headers, and those of the defaults that they do not set themselves."""
    present = list(headers)
    names = {name for name, _ in present}
    return [*present, *(pair for pair in defaults if pair[0] not in names)]
