"""`KeyProvider`: whoever holds the key-encryption keys, and wraps data keys with them. `local_keys` and `transit` are two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from app.errors import ConfigurationError, Overloaded
from app.vault.data_key import WrappedKey


class KeysUnavailable(Overloaded):
    """The service that holds the key-encryption keys does not answer, or refuses. `reason` is for operators."""

    def __init__(self, reason: str) -> None:
        super().__init__("The keys of the token store cannot be reached at the moment.", retry_after=5)
        self.reason = reason


class KeyProvider(Protocol):
    """Wraps data keys of 32 bytes, each bound to its id. What it holds never leaves it."""

    def owns(self, key_encryption_key: str) -> bool:
        """Whether that is the name of one of its keys."""
        ...

    async def wrap(self, key_id: UUID, data_key: bytes) -> tuple[str, bytes]:
        """The name of the key that wrapped it, its primary one, and the wrapped data key. Raises KeysUnavailable."""
        ...

    async def unwrap(self, wrapped: WrappedKey) -> bytes:
        """Raises KeysUnavailable, and ConfigurationError where it does not hold the right key."""
        ...

    async def is_current(self, key_encryption_key: str) -> bool:
        """Whether that is the one it wraps with now. Raises KeysUnavailable."""
        ...


class KeyProviders:
    """Several as one: the first wraps, and each unwraps what it wrapped, so that data keys can move from one to another."""

    def __init__(self, primary: KeyProvider, *others: KeyProvider) -> None:
        self._primary = primary
        self._all: Sequence[KeyProvider] = (primary, *others)

    def owns(self, key_encryption_key: str) -> bool:
        return any(each.owns(key_encryption_key) for each in self._all)

    async def wrap(self, key_id: UUID, data_key: bytes) -> tuple[str, bytes]:
        return await self._primary.wrap(key_id, data_key)

    async def unwrap(self, wrapped: WrappedKey) -> bytes:
        for each in self._all:
            if each.owns(wrapped.key_encryption_key):
                return await each.unwrap(wrapped)
        raise missing(wrapped)

    async def is_current(self, key_encryption_key: str) -> bool:
        return self._primary.owns(key_encryption_key) and await self._primary.is_current(key_encryption_key)


def missing(wrapped: WrappedKey) -> ConfigurationError:
    """Nobody here holds the key that wrapped it."""
    return ConfigurationError(
        [
            (
                f"BROKER_ENCRYPTION_KEYS: the key {wrapped.key_encryption_key!r} is missing, and the data key "
                f"{wrapped.id} was wrapped by it; add it back (it need not be the first)"
            )
        ]
    )
