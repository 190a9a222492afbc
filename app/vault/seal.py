"""Envelope encryption's inner step: AES-256-GCM under a data key, bound to the place it is kept in.

A sealed value: version (1 byte) | data key id (16) | nonce (12) | ciphertext and tag. The additional authenticated
data is `table|row id|field|key id|generation`, so a ciphertext moved to another row, field or time does not open.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
_VERSION = b"\x01"
_NONCE_BYTES = 12
_HEADER_BYTES = len(_VERSION) + 16


class CannotOpen(Exception):
    """The ciphertext was changed, moved, or sealed under another key."""


@dataclass(frozen=True)
class Place:
    """Where a sealed value is kept. It opens at this very place only."""

    table: str
    row_id: UUID
    field: str
    generation: int

    def authenticated_data(self, key_id: UUID) -> bytes:
        return f"{self.table}|{self.row_id}|{self.field}|{key_id}|{self.generation}".encode()


def seal(key_id: UUID, key: bytes, plaintext: bytes, place: Place) -> bytes:
    """A new ciphertext under a fresh random nonce."""
    nonce = os.urandom(_NONCE_BYTES)
    sealed = _cipher(key).encrypt(nonce, plaintext, place.authenticated_data(key_id))
    return _VERSION + key_id.bytes + nonce + sealed


def key_id_of(sealed: bytes) -> UUID:
    """The data key it was sealed under. Raises CannotOpen where it is no sealed value at all."""
    if sealed[:1] != _VERSION or len(sealed) < _HEADER_BYTES + _NONCE_BYTES:
        raise CannotOpen("this is not a sealed value")
    return _id_of(sealed[1:_HEADER_BYTES])


def key_id_bytes() -> tuple[int, int]:
    """Where its data key's id stands in a sealed value: the first byte, counted from 1, and how many."""
    return len(_VERSION) + 1, _HEADER_BYTES - len(_VERSION)


def open_sealed(key: bytes, sealed: bytes, place: Place) -> bytes:
    """What was sealed at `place`. Raises CannotOpen for anything else."""
    nonce = sealed[_HEADER_BYTES : _HEADER_BYTES + _NONCE_BYTES]
    try:
        return _cipher(key).decrypt(
            nonce, sealed[_HEADER_BYTES + _NONCE_BYTES :], place.authenticated_data(key_id_of(sealed))
        )
    except InvalidTag:
        raise CannotOpen(f"{place.table}.{place.field} of {place.row_id} does not open") from None


# Few keys seal everything, and what is made of one costs as much as its use.
@lru_cache(64)
def _cipher(key: bytes) -> AESGCM:
    return AESGCM(key)


@lru_cache(64)
def _id_of(raw: bytes) -> UUID:
    return UUID(bytes=raw)
