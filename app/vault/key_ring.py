"""The key ring: key-encryption keys as settings write them."""

from __future__ import annotations

import base64
import binascii
import re

from app.errors import ConfigurationError
from app.vault.seal import KEY_BYTES

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
    if len(set(key)) < 12:  # 32 random bytes have under 12 different values once in 10^15
        return "is too regular to be random"
    return None
