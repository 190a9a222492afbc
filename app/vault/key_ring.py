"""The key ring: key-encryption keys as settings write them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections import Counter
from itertools import pairwise

from app.errors import ConfigurationError
from app.vault.seal import KEY_BYTES

# SHA-256 of all that stands in this repository and would do as a key; a test finds what is lacking.
_PUBLISHED = frozenset(
    {
        "9f9550a917a3ced2ed5c14b2103689433286bfdaaeefb8a9db51b22c91f664a1",
        "400a004f8af35677f2e6574acbea13dfafd992eef345a702272d0b8be20843c1",
        "8524b62b5a8b1979f8c3bb926fc7d5cac5dcc81e49dba7badfd956326d43bbeb",
        "239da40b7b80ae550b6a4f16aaf9681b6fb2eacfd1a80cadce54733493e9dca1",
    }
)
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,32}")


def parse_keys(text: str, *, source: str) -> dict[str, bytes]:
    """`id:base64,...` as ids and 32-byte keys in that order; the first is primary.

    Raises ConfigurationError naming `source` and the key's id, never its bytes.
    """
    keys: dict[str, bytes] = {}
    mistakes = []
    entries = filter(None, (part.strip() for part in re.split(r"[,\n]", text)))
    for position, entry in enumerate(entries, start=1):
        key_id, separator, encoded = entry.partition(":")
        mistake = _key_mistake(key_id, encoded) if separator else "must read `id:base64`"
        if key_id in keys:
            mistake = "is there twice"
        if mistake:
            # What is no id may be the key itself.
            named = key_id if _KEY_ID.fullmatch(key_id) and separator else str(position)
            mistakes.append(f"{source}: key {named}: {mistake}")
        else:
            keys[key_id] = base64.b64decode(encoded)
    if not keys and not mistakes:
        mistakes.append(f"{source}: holds no key; `broker keys generate` prints one")
    if mistakes:
        raise ConfigurationError(mistakes)
    return keys


def _key_mistake(key_id: str, encoded: str) -> str | None:
    if not _KEY_ID.fullmatch(key_id):
        return "an id has 1 to 32 letters, digits, dots, dashes"
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return "is not base64"
    if len(key) != KEY_BYTES:
        return f"must be {KEY_BYTES} bytes, has {len(key)}"
    if is_regular(key):
        return "is too regular to be random"
    if all(0x20 <= byte < 0x7F for byte in key):  # of random ones, once in 10^13
        return "is a text, and not random bytes"
    return None


def is_published(key: bytes) -> bool:
    """Whether it stands in the service's own repository, so that everybody has it."""
    return hashlib.sha256(key).hexdigest() in _PUBLISHED


def is_regular(secret: bytes) -> bool:
    """Whether 32 bytes are a pattern rather than drawn at random: random ones have under 12 different values once in 10^15,
    and the same step from one to the next half of the time never."""
    steps = Counter((after - before) % 256 for before, after in pairwise(secret))
    return len(set(secret)) < 12 or steps.most_common(1)[0][1] > len(secret) // 3
