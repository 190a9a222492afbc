"""Key-encryption keys that this process holds itself, out of its settings."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from app.errors import ConfigurationError
from app.vault.data_key import WrappedKey
from app.vault.key_provider import missing
from app.vault.seal import KEY_BYTES, CannotOpen, Place, open_sealed, seal


class LocalKeys:
    """A `KeyProvider`. AES-256-GCM, bound to the data key's id."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """`keys` maps ids to 32 bytes each; the first is primary."""
        self._keys = dict(keys)
        self._primary = next(iter(keys))

    def owns(self, key_encryption_key: str) -> bool:
        return key_encryption_key in self._keys

    async def wrap(self, key_id: UUID, data_key: bytes) -> tuple[str, bytes]:
        return self._primary, seal(key_id, self._keys[self._primary], data_key, _place(key_id))

    async def unwrap(self, wrapped: WrappedKey) -> bytes:
        wrapping = self._keys.get(wrapped.key_encryption_key)
        if wrapping is None:
            raise missing(wrapped)
        try:
            key = open_sealed(wrapping, wrapped.wrapped_key, _place(wrapped.id))
        except CannotOpen:
            raise ConfigurationError(
                [
                    (
                        f"BROKER_ENCRYPTION_KEYS: the key {wrapped.key_encryption_key!r} is another one than the one "
                        f"that wrapped the data key {wrapped.id}; give it back its bytes, or its own id"
                    )
                ]
            ) from None
        if len(key) != KEY_BYTES:
            raise ConfigurationError([f"data key {wrapped.id} has {len(key)} bytes instead of {KEY_BYTES}"])
        return key

    async def is_current(self, key_encryption_key: str) -> bool:
        return key_encryption_key == self._primary


def _place(key_id: UUID) -> Place:
    return Place("data_keys", key_id, "wrapped_key", 0)
